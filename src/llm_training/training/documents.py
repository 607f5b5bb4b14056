"""Document-limited attention: whether the documents of a packed row see each other, and why so."""

from __future__ import annotations

from dataclasses import dataclass

from llm_training.runtime.device import Device

UNPACKED = "none"
# Torch's fused kernel with a mask of all pairs: it takes longer with documents than without.
WITH_MASK = "sdpa"


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


def choose_document_attention(
    wanted: str, device: Device, *, strategy: str, kernel: str, documents_per_row: float | None = None
) -> DocumentChoice:
    """Resolve ``auto``.

    On a CPU its own kernels cost a few percent of the speed at most, and it brings the more the more documents share a row
    (benchmarks/results/document_attention.json): so it is on where documents are shorter than rows.

    Args:
        wanted: auto, true or false.
        strategy: how rows are packed.
        kernel: the attention kernel that would serve documents here.
        documents_per_row: documents over rows in the packed cache; None while nothing is packed.
    """
    if wanted != "auto":
        return DocumentChoice(wanted == "true", "as asked" if wanted == "true" else "switched off")
    if strategy == UNPACKED:
        return DocumentChoice(False, "each row holds one document")
    if device.kind == "cuda" and kernel == "flex":
        return DocumentChoice(True, "FlexAttention skips what documents do not share")
    if device.kind == "cpu" and kernel != WITH_MASK:
        if documents_per_row is None:
            return DocumentChoice(False, "unless documents turn out shorter than rows")
        count = f"{documents_per_row:.1f} documents for each row"
        return DocumentChoice(documents_per_row > 1, count if documents_per_row > 1 else "documents are longer than rows")
    return DocumentChoice(False, f"no kernel skips documents on this {device.kind} device")
