"""The sections of the page about a data set: one question each, answered by charts and a sentence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from llm_training.report import page as parts
from llm_training.report.charts import Bar, Mark, Row, histogram, legend, rows
from llm_training.report.dataset import NGRAM_SIZES, OVERLAPPING_WORDS, DatasetStatistics, Seen, Sizes
from llm_training.report.distribution_chart import distribution_histogram
from llm_training.report.languages import is_language, language_name
from llm_training.report.markup import Markup, joined, tag
from llm_training.report.numbers import plural, share, short, size, three_digits
from llm_training.report.sketches import RepeatCounts

SERIES_OF_SPLIT = {"train": "s1", "validation": "s2", "test": "s3"}
_MAX_ROWS = 12
_MAX_REASONS = 20
_SHOWN_NGRAMS = 14
_NGRAM_NAMES = {1: "Words", 2: "Pairs of words", 3: "Runs of three words", 5: "Runs of five words"}
_REPEAT_SERIES = ("s1", "s2", "s2", "s4", "s5")


@dataclass(frozen=True)
class NearFacts:
    """Documents that nearly repeat another one, documents looked at, and held-out ones that nearly repeat training."""

    num_near: int
    num_documents: int
    num_leaked: int


@dataclass(frozen=True)
class PageFacts:
    """What the page says besides the statistics.

    Attributes:
        title: the heading.
        sources: what was read, in the user's words.
        tokenizer: its name for readers; empty without one.
        compared_by: what groups are (``file``, or a field's name).
        near: near-duplicates, or None when nobody looked.
        missing: what was not measured, and why; one line each.
        footer: the last line.
    """

    title: str
    sources: Sequence[str]
    tokenizer: str = ""
    compared_by: str = "file"
    near: NearFacts | None = None
    missing: Sequence[str] = field(default=())
    footer: str = "Made by llm-analyze-data. Nothing on this page is fetched from anywhere."


def sizes_section(found: DatasetStatistics, facts: PageFacts) -> Markup:
    """Lengths, fit of the tokenizer, shares of splits and groups."""
    words = found.words
    sentence = (
        f"Half of the documents have {words.quantile(0.5):,.0f} words or fewer, nine in ten at most {words.quantile(0.9):,.0f}; "
        f"the longest has {words.greatest:,.0f}."
    )
    lengths = parts.card(
        "Document lengths in words", sentence, distribution_histogram("Document lengths in words", words, "words"), is_wide=True
    )
    cards = [lengths]
    if found.bytes_per_token.count:
        spread = found.bytes_per_token
        cards.append(
            parts.card(
                "Bytes per token",
                f"With {facts.tokenizer}. Few bytes per token mean text that the tokenizer does not know.",
                distribution_histogram("Bytes per token of documents", spread, "bytes per token", show=three_digits, is_whole=False),
            )
        )
    if len(found.by_split) > 1:
        cards.append(_split_card(found))
    if len(found.by_group) > 1:
        cards.append(_group_card(found, facts))
    if found.total.num_tokens and len(found.by_group) > 1:
        cards.append(_fit_card(found, facts))
    intro = f"{plural(found.total.num_documents, 'document')}, {size(found.total.num_bytes)} of text."
    return parts.section("How much, and how long", intro, parts.grid(*cards))


def _split_card(found: DatasetStatistics) -> Markup:
    whole = found.total.num_bytes
    entries = [
        Row(
            name,
            [(SERIES_OF_SPLIT.get(name, "s4"), sizes.num_bytes)],
            f"{short(sizes.num_documents)} docs · {share(sizes.num_bytes, whole)}",
        )
        for name, sizes in found.by_split.items()
    ]
    return parts.card(
        "Splits", "Share of the text that trains, and that is held out.", rows(entries, whole=whole), _sizes_table("split", found.by_split)
    )


def _group_card(found: DatasetStatistics, facts: PageFacts) -> Markup:
    sums = {name: _sum(of.values()) for name, of in found.by_group.items()}
    order = sorted(sums, key=lambda name: (-sums[name].num_bytes, name))
    splits = list(found.by_split)
    entries = [
        Row(
            name,
            [
                (SERIES_OF_SPLIT.get(split, "s4"), found.by_group[name][split].num_bytes)
                for split in splits
                if split in found.by_group[name]
            ],
            f"{size(sums[name].num_bytes)} · {share(sums[name].num_bytes, found.total.num_bytes)}",
            f"{name}: {plural(sums[name].num_documents, 'document')}, {size(sums[name].num_bytes)}",
        )
        for name in order[:_MAX_ROWS]
    ]
    keys = legend([(SERIES_OF_SPLIT.get(split, "s4"), split) for split in splits]) if len(splits) > 1 else None
    rest = f" The {_MAX_ROWS} largest of {len(order):,} are drawn." if len(order) > _MAX_ROWS else ""
    table = _sizes_table(facts.compared_by, {name: sums[name] for name in order[:100]})
    return parts.card(f"Text by {facts.compared_by}", f"Where the bytes come from.{rest}", joined(keys, rows(entries)), table)


def _fit_card(found: DatasetStatistics, facts: PageFacts) -> Markup:
    sums = {name: _sum(of.values()) for name, of in found.by_group.items()}
    order = sorted((name for name in sums if sums[name].num_tokens), key=lambda name: (-sums[name].num_bytes, name))[:_MAX_ROWS]
    ratios = {name: sums[name].num_bytes / sums[name].num_tokens for name in order}
    entries = [Row(name, [("s3", ratio)], f"{three_digits(ratio)} bytes per token") for name, ratio in ratios.items()]
    sentence = f"Bytes per token by {facts.compared_by}, with {facts.tokenizer}: longer bars are cheaper text."
    return parts.card("How the tokenizer fits", sentence, rows(entries))


def content_section(found: DatasetStatistics) -> Markup | None:
    """Quality and languages; None when neither was measured."""
    cards = []
    if found.quality:
        cards.append(_quality_card(found))
    if found.languages:
        cards.append(_language_card(found))
    if not cards:
        return None
    return parts.section("What it is like", f"Measured on {plural(found.num_measured, 'document')}.", parts.grid(*cards))


def _quality_card(found: DatasetStatistics) -> Markup:
    total = found.quality.total()
    columns = [sum(found.quality[score] for score in range(start, start + 5 + (start == 95))) for start in range(0, 100, 5)]
    bars = [
        Bar(
            number / 20,
            (number + 1) / 20,
            count,
            f"quality {number / 20:.2f} to {(number + 1) / 20:.2f}: {count:,} documents, {share(count, total)}",
        )
        for number, count in enumerate(columns)
    ]
    median, low = found.quality_quantile(0.5), found.quality_quantile(0.1)
    marks = [Mark(low, f"worst tenth ≤ {low:.2f}"), Mark(median, f"median {median:.2f}")]
    ticks = [(step / 4, f"{step / 4:g}") for step in range(5)]
    description = f"{total:,} documents, median {median:.2f}, worst tenth at most {low:.2f}"
    sentence = f"Half of the documents score {median:.2f} or more. The score is the one of --min-quality."
    return parts.card("Quality scores", sentence, histogram("Quality scores", description, bars, ticks, marks), is_wide=True)


def _language_card(found: DatasetStatistics) -> Markup:
    total = found.languages.total()
    ranked = [(language_name(code), count) for code, count in found.languages.most_common()]
    entries = _counted_rows(ranked, total, _MAX_ROWS, "s4", "language")
    main = next((code for code, _ in found.languages.most_common() if is_language(code)), None)
    sentence = "No language was found with certainty."
    if main is not None:
        sentence = f"{language_name(main)} is the main language, with {share(found.languages[main], total)} of the documents."
    table = parts.table(("language", "documents", "share"), [(name, f"{count:,}", share(count, total)) for name, count in ranked])
    return parts.card("Languages", sentence, rows(entries), table)


def _counted_rows(ranked: Sequence[tuple[str, int]], total: int, most: int, series: str, noun: str) -> list[Row]:
    """A row for each of the first, and one for the others together, so that the rows add up to ``total``."""
    first = ranked if len(ranked) <= most else ranked[: most - 1]
    rest = ranked[len(first) :]
    shown = [*first, *([(f"{plural(len(rest), f'other {noun}')}, in the table", sum(count for _, count in rest))] if rest else [])]
    return [Row(name, [(series, count)], f"{count:,} · {share(count, total)}") for name, count in shown]


def repeats_section(repeats: RepeatCounts, facts: PageFacts) -> Markup:
    """Copies, near-duplicates and leaks."""
    total = repeats.num_documents
    entries = [
        Row(f"text that occurs {name}", [(series, count)], f"{count:,} · {share(count, total)}")
        for (name, count), series in zip(repeats.by_size.items(), _REPEAT_SERIES, strict=True)
    ]
    cards = [
        parts.card(
            "How often a text occurs", "Documents whose text is equal but for white space belong together.", rows(entries, whole=total)
        )
    ]
    copies = [
        Row("different texts", [("s1", repeats.num_unique)], f"{repeats.num_unique:,} · {share(repeats.num_unique, total)}"),
        Row("copies, byte for byte", [("s5", repeats.num_copies)], f"{repeats.num_copies:,} · {share(repeats.num_copies, total)}"),
        Row(
            "copies but for white space",
            [("s2", repeats.num_spaced_copies)],
            f"{repeats.num_spaced_copies:,} · {share(repeats.num_spaced_copies, total)}",
        ),
    ]
    if facts.near is not None:
        near, looked_at = facts.near.num_near, facts.near.num_documents
        copies.append(Row("near-duplicates of another text", [("s3", near)], f"{near:,} · {share(near, looked_at)}"))
    if repeats.num_held_out:
        leaked = share(repeats.num_leaked, repeats.num_held_out)
        copies.append(
            Row("held-out texts that are trained on", [("s5", repeats.num_leaked)], f"{repeats.num_leaked:,} · {leaked} of held out")
        )
    cards.append(parts.card("What would go", "The first of each group stays, the others are copies.", rows(copies, whole=total)))
    return parts.section(
        "Repetition", "A text seen many times is learnt by heart, and a held-out text that was seen measures nothing.", parts.grid(*cards)
    )


def ngram_section(found: DatasetStatistics) -> Markup | None:
    """Frequent words and runs of words; None without words."""
    cards = [_ngram_card(found, length, top) for length in NGRAM_SIZES if (top := found.top_runs(length, _SHOWN_NGRAMS))]
    if not cards:
        return None
    intro = "Long runs that come often are mostly menus, notices and licences, not language."
    return parts.section("What it says most", intro, parts.grid(*cards, is_narrow=True))


def _ngram_card(found: DatasetStatistics, length: int, top: Sequence[tuple[str, int]]) -> Markup:
    sentence = f"The {len(top)} most frequent."
    if length >= OVERLAPPING_WORDS:
        left_out = "of runs that share more than half of their words, only the first is shown"
        sentence = f"The {len(top)} most frequent that do not overlap: {left_out}."
    if error := found.runs.error(length):
        sentence += f" In more text than is counted exactly, counts may be up to {error:,} too low, and runs of fewer may be missing."
    entries = [Row(words, [("s4" if length == 1 else "s1", count)], short(count), f"{words}: {count:,} times") for words, count in top]
    table = parts.table(("words", "count"), [(words, f"{count:,}") for words, count in top])
    return parts.card(_NGRAM_NAMES[length], sentence, rows(entries), table)


def dropped_section(found: DatasetStatistics) -> Markup | None:
    """What did not come through, by reason, with samples; None when nothing was dropped."""
    if not found.dropped and not found.dropped_samples:
        return None
    total = found.dropped.total()
    entries = _counted_rows(found.dropped.most_common(), total, _MAX_REASONS, "s5", "reason")
    table = parts.table(("reason", "documents"), [(reason, f"{count:,}") for reason, count in found.dropped.most_common()])
    everything = total + found.total.num_documents
    chart = (
        parts.card(
            "Reasons",
            f"{share(total, everything)} of {plural(everything, 'document')} went, for {plural(len(found.dropped), 'reason')}.",
            rows(entries),
            table,
        )
        if total
        else None
    )
    shown = [document for _, reservoir in sorted(found.dropped_samples.items()) for document in reservoir]
    return parts.section(
        "What was dropped",
        f"{plural(total, 'document')} did not come through.",
        parts.grid(chart) if chart else None,
        _samples(found, shown),
    )


def samples_section(found: DatasetStatistics) -> Markup:
    """Documents drawn evenly, and those of lowest quality."""
    drawn = list(found.samples)
    shown = [parts.section("Samples", f"{plural(len(drawn), 'document')} drawn evenly.", _samples(found, drawn))]
    if found.worst:
        shown.append(
            parts.section(
                "Lowest quality",
                "The documents with the lowest scores: what a higher --min-quality would drop first.",
                _samples(found, found.worst),
            )
        )
    return joined(*shown)


def _samples(found: DatasetStatistics, documents: Sequence[Seen]) -> Markup:
    return tag("div", *(_sample(found, document) for document in documents), class_="samples")


def _sample(found: DatasetStatistics, document: Seen) -> Markup:
    facts = [size(document.num_bytes)]
    if document.reason or len(found.by_group) > 1:
        facts.insert(0, document.group)
    if not document.reason and len(found.by_split) > 1:
        facts.append(document.split)
    if document.num_tokens:
        facts.append(plural(document.num_tokens, "token"))
    if document.quality is not None:
        facts.append(f"quality {document.quality:.2f}")
    if document.language is not None:
        facts.append(language_name(document.language))
    return parts.sample(document.id, [fact for fact in facts if fact != document.id], document.text, document.reason)


def _sizes_table(name: str, sizes: dict[str, Sizes]) -> Markup:
    return parts.table(
        (name, "documents", "bytes", "words", "tokens"),
        [(key, *(f"{value:,}" for value in (of.num_documents, of.num_bytes, of.num_words, of.num_tokens))) for key, of in sizes.items()],
    )


def _sum(sizes: Iterable[Sizes]) -> Sizes:
    total = Sizes()
    for each in sizes:
        total.num_documents += each.num_documents
        total.num_bytes += each.num_bytes
        total.num_words += each.num_words
        total.num_tokens += each.num_tokens
    return total
