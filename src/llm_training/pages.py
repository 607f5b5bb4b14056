"""HTML pages to text: their main content by resiliparse, and by plain stripping where that would take for ever.

resiliparse's time grows with the square of how deep tags are nested, of how many styles are left open and of the attributes of one
tag. Pages that people wrote have few of each; one scan of a page counts them before it is parsed.
"""

from __future__ import annotations

import contextlib
import html as entities
import io
import re
from collections import Counter
from collections.abc import Iterator
from typing import Final, NamedTuple

from llm_training.errors import ConfigError

_MAX_DEPTH: Final = 256
_MAX_OPEN_STYLES: Final = 32
_MAX_ATTRIBUTES: Final = 1_000
_LONG_TAG_CHARACTERS: Final = 4_000

# What stands in quotes belongs to the tag, also a bracket; possessive, so that no character is looked at twice.
_TAG: Final = re.compile(
    r"""<(?:!--|(?P<closing>/?)(?P<name>[a-zA-Z][^\s/>]*+)(?:=\s*+(?:"[^"]*+(?:"|\Z)|'[^']*+(?:'|\Z)|(?!["']))|[^>=])*+(?:>|\Z))"""
)
_QUOTED: Final = re.compile(r""""[^"]*+"|'[^']*+'""")
_ATTRIBUTE: Final = re.compile(r"[^\s/=]++")
_STYLES: Final = frozenset(["a", "b", "big", "code", "em", "font", "i", "nobr", "s", "small", "strike", "strong", "tt", "u"])
_INLINE: Final = _STYLES | frozenset({
    "abbr", "cite", "img", "input", "kbd", "label", "mark", "q", "samp", "span", "sub", "sup", "time", "var", "wbr",
})  # fmt: skip
# Tags without content, and those that the next of their kind or their parent's end closes.
_NOT_NESTING: Final = frozenset({
    "area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track", "wbr",
    "a", "p", "li", "dt", "dd", "option", "optgroup", "tr", "td", "th", "thead", "tbody", "tfoot",
})  # fmt: skip
# Elements whose content is not HTML.
_RAW: Final = {
    name: re.compile(f"</{name}(?=[\\s/>])", re.IGNORECASE)
    for name in ("script", "style", "textarea", "title", "xmp", "iframe", "noembed", "noframes")
}


class _Tag(NamedTuple):
    """A tag, or a comment (no name); what must not be read as text or tags after it belongs to it."""

    start: int
    stop: int
    name: str = ""
    is_closing: bool = False
    num_attributes: int = 0


def extract_page(html: str) -> str:
    """The main content of a page as text: no menus, scripts and styles, paragraphs apart.

    Raises:
        ConfigError: resiliparse is not installed.
    """
    try:
        from resiliparse.extract.html2text import extract_plain_text
    except ImportError:
        raise ConfigError("extracting text from HTML needs resiliparse", remedy="pip install 'llm-training[data]'") from None
    if is_tangled(html):
        return strip_tags(html)
    return extract_plain_text(html, main_content=True, alt_texts=False, list_bullets=False)


def is_tangled(html: str) -> bool:
    """True for a page whose parsing could take time out of proportion to its length."""
    nested: list[str] = []
    open_tags: Counter[str] = Counter()
    num_styles = 0
    for tag in _tags(html):
        if tag.num_attributes > _MAX_ATTRIBUTES:
            return True
        name = tag.name
        if not name or name in _NOT_NESTING:
            continue
        if name in _STYLES:  # the end of another tag does not end them
            num_styles += (-1 if open_tags[name] else 0) if tag.is_closing else 1
            open_tags[name] = max(0, open_tags[name] + (-1 if tag.is_closing else 1))
        elif not tag.is_closing:
            nested.append(name)
            open_tags[name] += 1
        elif open_tags[name]:
            _close(nested, open_tags, name)
        if len(nested) > _MAX_DEPTH or num_styles > _MAX_OPEN_STYLES:
            return True
    return False


def _close(nested: list[str], open_tags: Counter[str], name: str) -> None:
    while True:
        last = nested.pop()
        open_tags[last] -= 1
        if last == name:
            return


def strip_tags(html: str) -> str:
    """The text between the tags of a page, menus and all, without scripts and styles; a line for each block."""
    parts = io.StringIO()  # a list of small strings takes many times their memory
    place = 0
    for tag in _tags(html):
        parts.write(html[place : tag.start])
        if tag.name and tag.name not in _INLINE:
            parts.write("\n")
        place = tag.stop
    parts.write(html[place:])
    text = parts.getvalue()
    with contextlib.suppress(ValueError):  # a character number of thousands of digits
        text = entities.unescape(text)
    lines = io.StringIO()
    for line in io.StringIO(text):
        if words := line.split():
            lines.write(" ".join(words) + "\n")
    return lines.getvalue().removesuffix("\n")


def _tags(html: str) -> Iterator[_Tag]:
    """Tags and comments in order, in time proportional to the length."""
    place = 0
    while (found := _TAG.search(html, place)) is not None:
        name, stop = (found["name"] or "").lower(), found.end()
        if not name:
            end = html.find("-->", found.start() + 2)  # a comment may be as short as <!-->
            stop = len(html) if end < 0 else end + 3
        elif name in _RAW and not found["closing"]:
            end_tag = _RAW[name].search(html, stop)
            stop = len(html) if end_tag is None else end_tag.start()
        yield _Tag(found.start(), stop, name, bool(found["closing"]), _num_attributes(found[0]))
        place = stop


def _num_attributes(tag: str) -> int:
    """Attributes of a long tag; a short one has few."""
    return 0 if len(tag) < _LONG_TAG_CHARACTERS else len(_ATTRIBUTE.findall(_QUOTED.sub("", tag)))
