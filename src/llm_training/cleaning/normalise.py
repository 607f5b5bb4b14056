"""Text as it was meant: mojibake read back, control characters out, one form for each character (NFC), one line break.

Mojibake is UTF-8 that somebody read as Windows-1252 or Latin-1: ``â€œ`` for a quotation mark. A stretch is read back only
when its characters are the bytes of valid UTF-8 and the result is plausible: punctuation or a letter of Latin, or three such
in a row, which no language writes by chance (``É»`` at the end of a French quotation is left alone).
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

_HIGH_BYTES: Final = {
    bytes([byte]).decode("cp1252") if byte not in (0x81, 0x8D, 0x8F, 0x90, 0x9D) else chr(byte): byte for byte in range(0x80, 0xA0)
}
_BYTE_OF: Final = {**_HIGH_BYTES, **{chr(byte): byte for byte in range(0x80, 0x100)}}
_CONTINUATION: Final = f"[{re.escape(''.join(character for character, byte in _BYTE_OF.items() if byte < 0xC0))}]"
_SEQUENCE: Final = f"(?:[Â-ß]{_CONTINUATION}|[à-ï]{_CONTINUATION}{{2}}|[ð-ô]{_CONTINUATION}{{3}})"
_MOJIBAKE: Final = re.compile(f"{_SEQUENCE}+")
_NUM_PLAUSIBLE_ALONE: Final = 3
_MAX_READINGS: Final = 2

_ESCAPE_SEQUENCE: Final = re.compile("\x1b(?:\\[[0-9;?]*[ -/]*[@-~]|[@-Z\\\\-_])")
_CONTROL: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufeff\ufffe\uffff]")
_DROPPED: Final = "\x08\x7f\ufeff"


def normalise(text: str) -> tuple[str, dict[str, int]]:
    """The text as it was meant, and how many changes of each kind were made."""
    changes: dict[str, int] = {}
    text, repaired = repair_mojibake(text)
    if repaired:
        changes["mojibake repaired"] = repaired
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    text, removed = remove_controls(text)
    if removed:
        changes["control character removed"] = removed
    if not unicodedata.is_normalized("NFC", text):
        text = unicodedata.normalize("NFC", text)
        changes["normalised to NFC"] = 1
    return text.strip(), changes


def repair_mojibake(text: str) -> tuple[str, int]:
    """Read back what was decoded wrongly, twice over if need be; returns the number of stretches mended."""
    total = 0
    for _ in range(_MAX_READINGS):
        if text.isascii() or _MOJIBAKE.search(text) is None:
            break
        count = 0

        def mend(found: re.Match[str]) -> str:
            nonlocal count
            meant = _read_back(found[0])
            count += meant is not None
            return found[0] if meant is None else meant

        text = _MOJIBAKE.sub(mend, text)
        total += count
        if not count:
            break
    return text, total


def _read_back(stretch: str) -> str | None:
    try:
        meant = bytes(map(_BYTE_OF.__getitem__, stretch)).decode()
    except UnicodeDecodeError:
        return None
    is_plausible = len(meant) >= _NUM_PLAUSIBLE_ALONE or all(map(_is_common, meant))
    return meant if is_plausible else None


def _is_common(character: str) -> bool:
    """Latin-1's printable half, Latin Extended-A, general punctuation, currency, arrows and letter-like signs, emoji."""
    point = ord(character)
    return 0xA0 <= point <= 0x17F or 0x2000 <= point <= 0x21FF or point >= 0x1F000


def remove_controls(text: str) -> tuple[str, int]:
    """Without control characters, byte order marks and terminal escapes; what stood as a separator becomes a space."""
    if _CONTROL.search(text) is None:
        return text, 0
    text, escapes = _ESCAPE_SEQUENCE.subn("", text)
    text, controls = _CONTROL.subn(lambda found: "" if found[0] in _DROPPED else " ", text)
    return text, escapes + controls
