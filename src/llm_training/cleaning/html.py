"""HTML found in place of text: recognised by its tags, and reduced to its main content by resiliparse."""

from __future__ import annotations

import re
from typing import Final

from llm_training.errors import ConfigError

_START: Final = re.compile(r"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE | re.DOTALL)
_CLOSING: Final = re.compile(r"</(?:p|div|span|a|li|ul|ol|td|tr|table|h[1-6]|body|html|section|article|b|i|em|strong)\s*>", re.IGNORECASE)
# Closing tags for each thousand characters that make a text HTML; a text about HTML quotes fewer.
_MIN_TAGS: Final = 3
_MIN_TAGS_PER_THOUSAND: Final = 2


def is_html(text: str) -> bool:
    """True for a page, or a piece of one, rather than a text that mentions a tag."""
    if "</" not in text:
        return False
    if _START.match(text):
        return True
    count = len(_CLOSING.findall(text))
    return text.lstrip().startswith("<") and count >= _MIN_TAGS and count * 1000 >= _MIN_TAGS_PER_THOUSAND * len(text)


def extract_text(html: str) -> str:
    """The main content of a page, its menus, scripts and styles left out; paragraphs stay apart.

    Raises:
        ConfigError: resiliparse is not installed.
    """
    try:
        from resiliparse.extract.html2text import extract_plain_text
    except ImportError:
        raise ConfigError("extracting text from HTML needs resiliparse", remedy="pip install 'llm-training[data]'") from None
    return extract_plain_text(html, main_content=True, alt_texts=False, list_bullets=False)
