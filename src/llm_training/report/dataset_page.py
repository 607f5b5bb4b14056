"""The page about a data set: figures first, then what deserves a look, then the sections."""

from __future__ import annotations

from llm_training.report import dataset_cards as cards
from llm_training.report import page as parts
from llm_training.report.dataset import DatasetStatistics
from llm_training.report.dataset_cards import PageFacts
from llm_training.report.languages import is_language
from llm_training.report.numbers import counted, plural, share, short, size, three_digits
from llm_training.report.sketches import RepeatCounts


def dataset_page(found: DatasetStatistics, facts: PageFacts) -> bytes:
    """The HTML file."""
    repeats = found.repeats.counts()
    sections = [
        parts.tiles(_figures(found, repeats, facts)),
        parts.notes(_remarks(found, repeats, facts)),
        cards.sizes_section(found, facts),
        cards.content_section(found),
        cards.repeats_section(repeats, facts),
        cards.ngram_section(found),
        cards.dropped_section(found),
        cards.samples_section(found),
    ]
    lead = f"What is in {', '.join(facts.sources)}, and what to look at before training on it."
    return parts.page(facts.title, lead, [section for section in sections if section is not None], facts.footer)


def _figures(found: DatasetStatistics, repeats: RepeatCounts, facts: PageFacts) -> dict[str, str]:
    total = found.total
    shown = {"documents" if total.num_documents != 1 else "document": counted(total.num_documents)}
    shown |= {"of text": size(total.num_bytes), "words": short(total.num_words)}
    if total.num_tokens:
        shown["tokens"] = short(total.num_tokens)
        shown["bytes per token"] = three_digits(total.num_bytes / total.num_tokens)
    copies = repeats.num_copies + repeats.num_spaced_copies
    shown["of documents repeat another" if copies != 1 else "of documents repeats another"] = share(copies, total.num_documents)
    if found.quality:
        shown["median quality, 0 to 1"] = f"{found.quality_quantile(0.5):.2f}"
    if found.languages:
        num_languages = sum(map(is_language, found.languages))
        shown["languages" if num_languages != 1 else "language"] = str(num_languages)
    return shown


def _remarks(found: DatasetStatistics, repeats: RepeatCounts, facts: PageFacts) -> list[str]:
    """What deserves a look, in sentences; and what was not measured."""
    total = found.total.num_documents
    copies = repeats.num_copies + repeats.num_spaced_copies
    lines = []
    if repeats.num_leaked:
        lines.append(
            f"{plural(repeats.num_leaked, 'held-out document')} of {repeats.num_held_out:,} also occur in training: "
            "the loss on them is memory."
        )
    if copies > 0.01 * total:
        lines.append(f"{plural(copies, 'document')} ({share(copies, total)}) repeat an earlier one, white space aside.")
    if facts.near is not None and facts.near.num_leaked:
        lines.append(f"{plural(facts.near.num_leaked, 'held-out document')} nearly repeat a training document.")
    if facts.near is not None and facts.near.num_near > 0.01 * total:
        near = facts.near.num_near
        lines.append(f"{plural(near, 'document')} ({share(near, total)}) nearly repeat another: 80 % of their runs of five words or more.")
    if found.num_garbled:
        lines.append(
            f"{plural(found.num_garbled, 'document')} ({share(found.num_garbled, found.num_measured)}) hold control characters "
            "or undecodable places."
        )
    if found.num_empty:
        lines.append(f"{plural(found.num_empty, 'document')} hold white space only.")
    largest = found.longest[0] if found.longest else None
    if largest is not None and total > 1 and largest.num_bytes > 0.2 * found.total.num_bytes:
        lines.append(f"One document, {largest.id}, is {share(largest.num_bytes, found.total.num_bytes)} of all text.")
    return [*lines, *facts.missing]
