"""Document-limited attention: whether the documents of a packed row see each other, and why so."""

from __future__ import annotations

from dataclasses import dataclass

from llm_training.runtime.device import Device

UNPACKED = "none"


@dataclass(frozen=True)
class DocumentChoice:
    """Whether attention stays inside a document, and why: a line for the reader."""

    is_on: bool
    reason: str

    @property
    def line(self) -> str:
        """For the plan."""
        effect = "within each document" if self.is_on else "across the documents of a row"
        return f"{effect} ({self.reason})"


def choose_document_attention(wanted: str, device: Device, *, strategy: str, kernel: str) -> DocumentChoice:
    """Resolve ``auto``.

    Args:
        wanted: auto, true or false.
        strategy: how rows are packed.
        kernel: the attention kernel that would serve documents here.
    """
    if wanted != "auto":
        return DocumentChoice(wanted == "true", "as asked" if wanted == "true" else "switched off")
    if strategy == UNPACKED:
        return DocumentChoice(False, "each row holds one document")
    if device.kind == "cuda" and kernel == "flex":
        return DocumentChoice(True, "FlexAttention skips what documents do not share")
    if device.kind == "cpu":
        return DocumentChoice(False, "on a CPU only when asked for")
    return DocumentChoice(False, f"no kernel skips documents on this {device.kind} device")
