"""Bytes to text, for all sources: what is no text is an error, or becomes U+FFFD where the user asked for that."""

from __future__ import annotations

NOT_REPLACED = -1


def decode(data: bytes, *, replaces: bool, encoding: str = "utf-8") -> tuple[str, int]:
    """The text, and the offset of the first byte that became U+FFFD (`NOT_REPLACED` for none).

    Raises:
        UnicodeDecodeError: bytes that are no text, unless it ``replaces`` them.
        LookupError, ValueError: there is no such encoding, or it gives no text.
    """
    try:
        return data.decode(encoding), NOT_REPLACED
    except UnicodeDecodeError as error:
        if not replaces:
            raise
        return data.decode(encoding, errors="replace"), error.start


def first_bad_byte(data: bytes) -> int:
    """Offset of the first byte that is no UTF-8; 0 when all are."""
    return max(0, decode(data, replaces=True)[1])
