"""Documents that are in no chunk of a cache, or changed in reading: counted, told, and limited."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from llm_training.cache.store import ChunkStore, LeftOut
from llm_training.config.data import DataConfig
from llm_training.corpus import Corpus, ReadReport, located
from llm_training.events import EventBus, Notice


def counts_left_out(entries: Iterable[LeftOut]) -> str:
    """``3 invalid json, 1 missing text``, the most frequent first; empty for nothing."""
    reasons: Counter[str] = Counter()
    for entry in entries:
        reasons.update(entry.reasons)
    return ", ".join(f"{count:,} {reason}" for reason, count in reasons.most_common())


def tell_left_out(left_out: Sequence[LeftOut], bus: EventBus) -> None:
    """One line on the documents that the chunks built now lack."""
    if not (counts := counts_left_out(left_out)):
        return
    example = next((entry.example for entry in left_out if entry.example), "")
    bus.publish(Notice(message=f"documents left out: {counts}{f' (first: {example})' if example else ''}", level="warning"))


def tell_replaced(number: int, first: tuple[str, int] | None, corpus: Corpus, bus: EventBus) -> None:
    """One line on the documents that were read with U+FFFD for bytes that are no UTF-8, and where the first such byte is."""
    if number and first:
        what = "document was" if number == 1 else "documents were"
        line = f"{number:,} {what} read with U+FFFD for bytes that are no UTF-8 (first: {located(corpus, *first)})"
        bus.publish(Notice(message=line, level="warning"))


def require_few_bad(store: ChunkStore, data: DataConfig) -> None:
    """Raise DataError when more documents of the source were bad than ``data.max_bad_fraction`` allows."""
    report = ReadReport(num_documents=sum(total["num_documents"] for total in store.totals().values()))
    report.num_bad = sum(entry.num_bad for entry in store.left_out.values())
    report.examples = [entry.example for entry in store.left_out.values() if entry.example][:1]
    report.check(data.max_bad_fraction)
