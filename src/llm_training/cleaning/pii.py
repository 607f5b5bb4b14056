"""Masks for what identifies people: e-mail addresses, telephone numbers, IP addresses.

The e-mail pattern is the common one of RFC 5322's dot-atoms. Telephone numbers are those written with a separator: the North American
form, and international ones that begin with ``+``; bare runs of digits are left alone, they are mostly something else. An
IP address must be valid; one that stands behind ``version`` or ``v`` is a version.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

MASKS: Final = {"email": "[EMAIL]", "phone": "[PHONE]", "ip": "[IP]"}
_EMAIL: Final = re.compile(
    r"(?<![\w.+%-])[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]{1,64}(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]{1,64}){0,8}"
    r"@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,8}[A-Za-z]{2,24}\b"
)
_PHONE: Final = re.compile(
    r"(?<![\w.+/-])(?:\+?1[ .-]?)?(?:\(\d{3}\)[ .-]?|\d{3}[ .-])\d{3}[ .-]\d{4}(?![\w-])"
    r"|(?<![\w.+/-])\+\d{1,3}(?:[ .-]?\(?\d{1,4}\)?){2,5}(?![\w-])"
)
_IP4: Final = re.compile(r"(?<![\w.])(?<!version )(?<!Version )\d{1,3}(?:\.\d{1,3}){3}(?![\w]|\.\d)")
_IP6: Final = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:])")
# Without these there is no match of the patterns above, which take ten times as long to look for.
_PHONE_END: Final = re.compile(r"[ .)-]\d{3}[ .-]\d{4}(?![\w-])")
_PLUS_DIGIT: Final = re.compile(r"\+\d")
_IP4_MIDDLE: Final = re.compile(r"\d\.\d{1,3}\.\d{1,3}\.\d")


def mask(text: str) -> tuple[str, dict[str, int]]:
    """The text with masks, and how many of each kind."""
    counts: dict[str, int] = {}
    if "@" in text:
        text, number = _EMAIL.subn(MASKS["email"], text)
        counts["email masked"] = number
    if _PHONE_END.search(text) or _PLUS_DIGIT.search(text):
        text, number = _PHONE.subn(MASKS["phone"], text)
        counts["phone masked"] = number
    if _IP4_MIDDLE.search(text):
        text, counts["ip masked"] = _mask_addresses(text, _IP4)
    if "::" in text or text.count(":") >= 7:
        text, number = _mask_addresses(text, _IP6)
        counts["ip masked"] = counts.get("ip masked", 0) + number
    return text, {kind: number for kind, number in counts.items() if number}


def _mask_addresses(text: str, pattern: re.Pattern[str]) -> tuple[str, int]:
    number = 0

    def replace(found: re.Match[str]) -> str:
        nonlocal number
        try:
            address = ipaddress.ip_address(found[0])
        except ValueError:
            return found[0]
        if address == ipaddress.IPv6Address(0) or len(found[0]) < 6:
            return found[0]
        number += 1
        return MASKS["ip"]

    return pattern.sub(replace, text), number
