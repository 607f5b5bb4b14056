"""Making a plan, and making it longer.

Files are read once, to find where documents may be divided and to hash what each slice rests on; later readings trust
nothing and compare. A file whose size and time are as they were is not read again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from llm_training.corpus.corpus import Corpus, Source
from llm_training.corpus.document import SPLITS, TRAIN, VALIDATION
from llm_training.corpus.near_duplicates import find_near_duplicates
from llm_training.corpus.opened import ByteFile, OpenFile, open_file
from llm_training.corpus.plan import BY_HASH, BY_RECORD_TAIL, BY_TAIL, Plan, PlannedFile, PlannedSource, Slice, Span
from llm_training.corpus.reading import SliceReader, content_digest, edited, limits_of
from llm_training.corpus.sources.kinds import FORMATS, SourceFile
from llm_training.corpus.sources.record import Cut
from llm_training.corpus.split import split_of_digest
from llm_training.errors import DataError, IntegrityError, StorageError

# With fewer held-out documents expected than this, the documents themselves are looked at.
_FEW_HELD_OUT = 10
# Formats whose last record may still be written: it is left out until it is whole.
_GROWING_FORMATS = frozenset({"jsonl", "csv"})
# Splits of files that a limit of documents counts: what is named for validation or test is taken whole.
_COUNTED = (None, TRAIN)
REPEATED = "held-out file that repeats training files"

Notify = Callable[[str], None]
Placed = tuple[str | None, Span]


def make_plan(corpus: Corpus, previous: Plan | None = None, *, notify: Notify | None = None) -> Plan:
    """Plan a corpus, or continue a plan with what was added since.

    Args:
        corpus: the sources as they are now.
        previous: the plan so far; its slices stay as they are.
        notify: told, in one line each, what was left out.

    Raises:
        DataError: no documents, or (strict) a file that cannot be planned.
        IntegrityError: bytes under a planned slice changed, or ``previous`` belongs to other sources or settings.
    """
    planner = _Planner(corpus, previous, notify or (lambda _line: None))
    plan = planner.plan()
    _require_documents(corpus, plan)
    return plan


class _Planner:
    """Walks over the sources and collects files and slices."""

    def __init__(self, corpus: Corpus, previous: Plan | None, notify: Notify) -> None:
        self._corpus = corpus
        self._limits = limits_of(corpus)
        self._settings = _shaping_settings(corpus)
        self._notify = notify
        self._previous = previous
        self._old_files = {file.key: file for file in previous.files} if previous else {}
        self._old_spans = _spans_by_file(previous) if previous else {}
        self._files: list[PlannedFile] = []
        self._slices: list[Slice] = list(previous.slices) if previous else []
        self._skipped: Counter[str] = Counter(previous.skipped if previous else {})
        taken = sum(_num_documents(span) for piece in self._slices if piece.split in _COUNTED for span in piece.spans)
        self._left = max(0, corpus.settings.max_documents - taken) if corpus.settings.max_documents else None
        if previous is not None and dict(previous.settings) != self._settings:
            changed = sorted(key for key, value in self._settings.items() if previous.settings.get(key) != value)
            what = f"the plan was made with other settings ({', '.join(changed)})"
            raise IntegrityError(what, remedy="use the old values or another name")

    def plan(self) -> Plan:
        sources = tuple(self._plan_source(number, source) for number, source in enumerate(self._corpus.sources))
        known = {file.key for file in self._files}
        gone = tuple(file for file in self._old_files.values() if file.key not in known)
        return Plan(self._settings, sources, (*self._files, *gone), tuple(self._slices), dict(self._skipped))

    def _plan_source(self, number: int, source: Source) -> PlannedSource:
        old = self._previous.sources[number] if self._previous and number < len(self._previous.sources) else None
        if old is not None and old.uri != source.name:
            what = f"source {number} of the plan is {old.uri}, not {source.name}"
            raise IntegrityError(what, remedy="keep the sources' order, add new ones last")
        if old is None:
            self._skipped.update(source.skipped)
        planned = old or PlannedSource(source.name, self._rule(source))
        divides = old is None and planned.rule == BY_TAIL
        placed = [item for file in _in_split_order(source.files) for item in self._plan_file(file, number, source, divides=divides)]
        if old is not None and old.rule != BY_HASH:  # a tail was held out of what came first: what is added trains whole
            placed = [(split or TRAIN, span) for split, span in placed]
        if source.removes_near_duplicates:
            placed = self._without_repetitions(placed, number)
        if old is None:
            planned = self._look_at_few(planned, placed, number)
        self._slices.extend(_group(placed, len(self._slices), number, self._limits.stretch_bytes))
        return planned

    def _rule(self, source: Source) -> str:
        """A single text file gives its last tenth; a single record is found out later, when records are counted."""
        undecided = [file for file in source.files if file.split is None]
        is_single = len(undecided) == 1 and undecided[0].kind in FORMATS and FORMATS[undecided[0].kind].is_cuttable
        return BY_TAIL if is_single and self._corpus.settings.validation_fraction > 0 else BY_HASH

    def _plan_file(self, file: SourceFile, source_number: int, source: Source, *, divides: bool) -> list[Placed]:
        if self._left == 0 and file.split in _COUNTED:
            self._files.extend(filter(None, [self._old_files.get(file.key)]))
            return []
        try:
            opened = open_file(file, self._corpus.settings)
            try:
                return self._plan_opened(file, opened, source_number, divides=divides)
            finally:
                opened.close()
        except (DataError, StorageError) as error:
            if not self._corpus.settings.skip_bad or len(source.files) == 1:
                raise
            self._skipped[error.what] += 1
            self._notify(f"skipped: {error}")
            return []

    def _plan_opened(self, file: SourceFile, opened: OpenFile, source_number: int, *, divides: bool) -> list[Placed]:
        old = self._old_files.get(file.key)
        stamp = opened.stamp()
        if old is not None and old.stamp == stamp:
            self._files.append(old)
            return []
        start, first = (old.planned_end, old.num_records) if old else (0, 0)
        for span in self._old_spans.get(file.key, ()):
            _compare(opened, span, self._corpus)
        start = _next_line(opened, start) if start else start
        placed: list[Placed] = []
        for split, cut in self._cuts(file, opened, start, divides=divides):
            count, num_bytes = self._take(split, cut)
            placed.append((split, Span(file.key, cut.start, cut.stop, first, count, num_bytes, cut.sha256, cut.is_continued)))
            first += count
            if self._left == 0 and file.split in _COUNTED and not divides:
                break
        end = placed[-1][1].stop if placed else start
        if self._left != 0 and isinstance(opened, ByteFile) and opened.format.name in _GROWING_FORMATS and opened.position > end:
            self._notify(_torn(file.key, *opened.lines_after(end)))
        self._files.append(PlannedFile(file.key, source_number, file.split, stamp, end, first))
        return placed

    def _take(self, split: str | None, cut: Cut) -> tuple[int, int]:
        """Records taken of a stretch, and their bytes: of the last one a share when there is a limit of documents."""
        if self._left is None or split not in _COUNTED or cut.num_records == 0:
            return cut.num_records, cut.num_bytes
        count = min(cut.num_records, self._left)
        self._left -= count - cut.is_continued
        return count, cut.num_bytes * count // cut.num_records

    def _cuts(self, file: SourceFile, opened: OpenFile, start: int, *, divides: bool) -> Iterator[tuple[str | None, Cut]]:
        if not divides or file.split is not None or not isinstance(opened, ByteFile):
            yield from ((file.split, cut) for cut in opened.cuts(start, None, self._limits))
            return
        tail = opened.tail_start()
        yield from ((TRAIN, cut) for cut in opened.cuts(0, tail, self._limits))
        yield from ((VALIDATION, cut) for cut in opened.cuts(tail, None, self._limits))

    def _without_repetitions(self, placed: Sequence[Placed], number: int) -> list[Placed]:
        texts = _texts_by_split(self._corpus, self._provisional(placed, number))
        held_out = dict(texts(VALIDATION))
        repeated = set(find_near_duplicates((text for _, text in texts(TRAIN)), held_out))
        if repeated:
            self._skipped[REPEATED] += len(repeated)
            self._notify(f"{len(repeated)} held-out files of {len(held_out)} repeat training files and are left out")
        return [(split, span) for split, span in placed if split != VALIDATION or span.file not in repeated]

    def _look_at_few(self, planned: PlannedSource, placed: Sequence[Placed], number: int) -> PlannedSource:
        """In a source of few documents hold out the exact share: chance could take none of them, or most."""
        undecided = [item for item in placed if item[0] is None]
        count = sum(span.count for _, span in undecided)
        fraction = self._corpus.settings.validation_fraction
        if not undecided or fraction <= 0 or count * fraction >= _FEW_HELD_OUT:
            return planned
        reader = SliceReader(_leniently(self._corpus), self._provisional(undecided, number))
        of_documents = [content_digest(document) for piece in reader.plan.slices for document in reader.read_slice(piece.number)]
        reader.close()
        digests = sorted(set(of_documents))
        if len(of_documents) == 1 and not reader.report.num_bad:
            return replace(planned, rule=BY_RECORD_TAIL)
        if len(digests) < 2:
            return planned
        held_out = digests[: max(1, round(len(digests) * fraction))]
        by_hash = [digest for digest in digests if split_of_digest(digest, fraction) == VALIDATION]
        forced = tuple(digest for digest in held_out if digest not in by_hash)
        return replace(planned, held_out=forced, kept=tuple(digest for digest in by_hash if digest not in held_out))

    def _provisional(self, placed: Sequence[Placed], number: int) -> Plan:
        sources = tuple(PlannedSource("", BY_HASH) for _ in range(number + 1))
        return Plan(self._settings, sources, (), tuple(_group(placed, 0, number, self._limits.stretch_bytes)))


def _leniently(corpus: Corpus) -> Corpus:
    """The same corpus, bad documents skipped: looking ahead must not raise what the reading itself will raise."""
    return replace(corpus, settings=replace(corpus.settings, skip_bad=True))


def _shaping_settings(corpus: Corpus) -> dict[str, object]:
    names = ("text_field", "validation_fraction", "slice_bytes", "max_document_bytes", "max_documents")
    # Named only when set, so that the others need not know them.
    added = tuple(name for name in ("keep_html", "replace_bad_bytes") if getattr(corpus.settings, name))
    return {name: getattr(corpus.settings, name) for name in (*names, *added)}


def _spans_by_file(plan: Plan) -> dict[str, list[Span]]:
    found: dict[str, list[Span]] = {}
    for piece in plan.slices:
        for span in piece.spans:
            found.setdefault(span.file, []).append(span)
    return found


def _num_documents(span: Span) -> int:
    """Documents that end in a span: a text larger than a slice is one, in several parts."""
    return span.count - span.is_continued


def _in_split_order(files: Sequence[SourceFile]) -> list[SourceFile]:
    order = {None: 0, **{split: index for index, split in enumerate(SPLITS)}}
    return sorted(files, key=lambda file: order[file.split])


def _compare(opened: OpenFile, span: Span, corpus: Corpus) -> None:
    cut = Cut(span.start, span.stop, span.count, span.num_bytes, span.sha256)
    if opened.read(cut, span.first, limits_of(corpus))[1] != span.sha256:
        raise edited(span)


def _torn(key: str, first: int, count: int) -> str:
    if count == 1:
        return f"the last line of {key} is not whole: left out until it is (line {first})"
    lines = f"from line {first} to the end ({count:,} lines)"
    return f"the last row of {key} is not whole: left out until it is, {lines}; look for a quote that is never closed"


def _next_line(opened: OpenFile, start: int) -> int:
    """Where to go on in a file of lines. Raises IntegrityError when a row was still being written as it was planned."""
    if not isinstance(opened, ByteFile) or opened.format.name not in _GROWING_FORMATS:
        return start
    begins = opened.line_from(start)
    if begins is None and opened.format.name == "csv":  # JSON Lines show by themselves whether a line is whole
        raise IntegrityError(
            "the last row went on after it was planned: it was still being written",
            where=opened.locate(start),
            remedy="end the file with a line break, then use another --cache.name, or llm-build-cache --force-rebuild",
        )
    return start if begins is None else begins


def _group(placed: Sequence[Placed], first_number: int, source: int, slice_bytes: int) -> Iterator[Slice]:
    """Put spans of one split together until a slice is full: between a half and three halves of ``slice_bytes``."""
    number, waiting, size = first_number, list[Span](), 0
    current: str | None = None
    for split, span in placed:
        if waiting and (split != current or (2 * size >= slice_bytes and size + span.num_bytes > slice_bytes)):
            yield Slice(number, source, current, tuple(waiting))
            number, waiting, size = number + 1, [], 0
        current = split
        waiting.append(span)
        size += span.num_bytes
    if waiting:
        yield Slice(number, source, current, tuple(waiting))


def _texts_by_split(corpus: Corpus, plan: Plan) -> Callable[[str], Iterator[tuple[str, str]]]:
    def texts(split: str) -> Iterator[tuple[str, str]]:
        reader = SliceReader(_leniently(corpus), plan)
        for piece in plan.slices:
            if piece.split == split:
                yield from ((document.source, document.text) for document in reader.read_slice(piece.number))
        reader.close()

    return texts


def _require_documents(corpus: Corpus, plan: Plan) -> None:
    """Refuse a corpus without documents now rather than three commands later; only small ones need a look."""
    if plan.num_bytes > corpus.settings.slice_bytes:
        return
    reader = SliceReader(corpus, plan)
    try:
        next(reader.documents())
    finally:
        reader.close()
