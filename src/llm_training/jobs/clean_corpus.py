"""A corpus, cleaned: slices in parallel, duplicates over all of them, then documents in the order of the plan.

The working folder holds the cleaned slices until the output is whole. It is named for what it was made from and how; a killed
preparation goes on with it, and any other is thrown away.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from llm_training.cache.ray_workers import in_ray
from llm_training.cache.sealed import digest
from llm_training.cache.workers import in_this_process, in_worker_processes
from llm_training.cleaning import RULES_VERSION, STEPS, CleaningSettings, Verdict
from llm_training.cleaning.duplicates import NONE, exact_duplicates, near_duplicates
from llm_training.cleaning.shingles import NUM_BANDS, shingles
from llm_training.cleaning.words import UInt64Array
from llm_training.config.data import DataConfig, Engine
from llm_training.corpus import TRAIN, VALIDATION, Corpus, Document, Plan, ReadReport
from llm_training.errors import ConfigError, DataError, StorageError
from llm_training.events import EventBus, Notice, Progress
from llm_training.jobs.clean_slices import SPLIT_ORDER, BadRecords, CleanSlices, SliceFiles, bad_lines, dropped_line, num_rows
from llm_training.runtime.device import usable_cores
from llm_training.storage.durable import make_directory, remove_tree, write_json
from llm_training.storage.faults import crash_point
from llm_training.storage.home import expanded
from llm_training.storage.reading import hash_file, read_bytes, read_json

DUPLICATES, NEAR_DUPLICATES = "duplicates", "near_duplicates"
ALL_STEPS: Final = (*STEPS, DUPLICATES, NEAR_DUPLICATES)
WORK_FOLDER: Final = ".cleaning"
_VERSION: Final = 4
_MAX_SLICE_BYTES: Final = 1 << 40  # our own files: no limit
# Starting a worker costs about a second of imports.
_BYTES_WORTH_A_WORKER: Final = 4_000_000


@dataclass(frozen=True)
class CleaningPlan:
    """What cleaning does.

    Attributes:
        settings: rules on one document.
        deduplicate: remove repetitions that differ in white space at most.
        near_similarity: remove documents at least so similar to one that stays (Jaccard of word 5-grams); None keeps them.
        tests: files of tests that training documents must not hold.
    """

    settings: CleaningSettings = field(default_factory=CleaningSettings)
    deduplicate: bool = True
    near_similarity: float | None = 0.8
    tests: tuple[str, ...] = ()


def cleaning_plan(
    steps: tuple[str, ...],
    *,
    languages: tuple[str, ...],
    min_length: int,
    min_quality: float,
    near_similarity: float,
    tests: tuple[str, ...],
) -> CleaningPlan | None:
    """The plan for named steps (of `ALL_STEPS`); None when nothing is to be done. Raises ConfigError for an unknown step."""
    unknown = [step for step in steps if step not in ALL_STEPS]
    if unknown:
        raise ConfigError(f"there is no cleaning step {unknown[0]}", where="data.cleaning", remedy=f"known: {', '.join(ALL_STEPS)}")
    if not (steps or min_length or min_quality or tests):
        return None
    settings = CleaningSettings(
        steps=tuple(step for step in STEPS if step in steps), languages=languages, min_length=min_length, min_quality=min_quality
    )
    return CleaningPlan(settings, DUPLICATES in steps, near_similarity if NEAR_DUPLICATES in steps else None, tests)


def configured_cleaning(data: DataConfig, *, auto: tuple[str, ...] = ALL_STEPS, deduplicate: bool | None = None) -> CleaningPlan | None:
    """The plan that the section ``data`` and the switch for duplicates ask for; ``auto`` is what that word means. Raises ConfigError."""
    groups = {"auto": auto, "all": ALL_STEPS, "none": ()}
    steps = [step for name in data.cleaning for step in groups.get(name, (name,))]
    if deduplicate is not None:
        steps = [step for step in steps if step not in (DUPLICATES, NEAR_DUPLICATES)]
        steps += [DUPLICATES, NEAR_DUPLICATES] if deduplicate else []
    return cleaning_plan(
        tuple(steps),
        languages=tuple(data.language),
        min_length=data.min_length,
        min_quality=data.min_quality,
        near_similarity=data.near_duplicate_similarity,
        tests=tuple(data.decontaminate),
    )


@dataclass
class CleanedCorpus:
    """Survivors of a cleaning, in the order of the plan, and the account of the rest.

    Attributes:
        dropped: documents by reason.
        changes: documents changed, by kind of change.
        bad: reason and place of the first records left out in reading.
        num_documents: documents that were read.
        held_out: training documents held out in the place of those that cleaning dropped.
    """

    folder: Path
    rows: _Rows
    original: NDArray[np.int64]
    near: dict[int, tuple[int, float]]
    report: ReadReport
    dropped: Counter[str]
    changes: Counter[str]
    bad: list[tuple[str, str]]
    num_documents: int
    num_bytes: int
    held_out: frozenset[int] = frozenset()

    def documents(self, split: str | None = None) -> Iterator[Document]:
        """Documents that stay, of one split or all."""
        for index, record in self._records():
            if self.original[index] == NONE and index not in self.near and split in (None, record["split"]):
                yield _document(record)

    def dropped_lines(self) -> Iterator[bytes]:
        """Everything that went, as JSON Lines with texts and reasons, slice by slice; the repetitions last."""
        for files in self.rows.files:
            yield read_bytes(files.dropped, max_bytes=_MAX_SLICE_BYTES)
        yield from bad_lines(self.bad)
        names = _Names(self.rows)
        for index, record in self._records():
            verdict = self._verdict_on_repetition(index, names)
            if verdict is not None:
                yield dropped_line(record, verdict, with_text=True)

    def _verdict_on_repetition(self, index: int, names: _Names) -> Verdict | None:
        if self.original[index] != NONE:
            return Verdict(DUPLICATES, "duplicate", f"of {names.of(int(self.original[index]))}")
        if index in self.near:
            other, similarity = self.near[index]
            return Verdict(NEAR_DUPLICATES, "near_duplicate", f"{similarity:.3f} like {names.of(other)}")
        return None

    def _records(self) -> Iterator[tuple[int, dict[str, Any]]]:
        index = 0
        for files in self.rows.files:
            for line in read_bytes(files.kept, max_bytes=_MAX_SLICE_BYTES).split(b"\n")[:-1]:
                record = orjson.loads(line)
                yield index, record | {"split": VALIDATION} if index in self.held_out else record
                index += 1


def clean_corpus(
    corpus: Corpus,
    plan: Plan,
    what: CleaningPlan,
    output: Path,
    *,
    workers: int = 0,
    engine: Engine = "local",
    keeps_dropped: bool = False,
    bus: EventBus,
) -> CleanedCorpus:
    """Clean all slices and find the repetitions among what is left.

    Args:
        corpus: the sources.
        plan: their slices.
        what: the steps.
        output: the folder being prepared; the working folder is in it.
        workers: processes; 0 takes what the amount of text is worth, on a Ray cluster all its CPUs.
        engine: where the slices are cleaned.
        keeps_dropped: keep the texts of what goes.
        bus: told of progress.

    Raises:
        ConfigError: a library is missing.
        DataError: a bad document in a strict reading, or too many bad ones, or nothing is left.
        StorageError, PeerError: the disk refuses; a worker died, or there is no cluster.
    """
    has_bands = what.near_similarity is not None
    folder = _working_folder(output, corpus, plan, what, keeps_dropped)
    job = CleanSlices(corpus, plan, folder, what.settings, what.tests, has_bands, keeps_dropped)
    all_files = [SliceFiles(folder, piece.number) for piece in plan.slices]
    due = [files.number for files in all_files if not files.account.exists()]
    total = plan.num_bytes
    done = total - sum(sum(span.num_bytes for span in plan.slices[number].spans) for number in due)
    bus.publish(Progress(task="Cleaning", done=done, total=total, unit="B"))
    try:
        with contextlib.closing(_run(job, due, workers, engine, total, bus)) as results:
            for _, num_bytes in results:
                done += num_bytes
                bus.publish(Progress(task="Cleaning", done=done, total=total, unit="B"))
    except DataError:
        remove_tree(folder)  # mended or skipped, a bad document makes this other work
        raise
    rows = _Rows(all_files, has_bands)
    account = _account(all_files, corpus)
    original = exact_duplicates(rows, rows.standing) if what.deduplicate else np.full(rows.num_documents, NONE, dtype=np.int64)
    near: dict[int, tuple[int, float]] = {}
    if what.near_similarity is not None:
        bus.publish(Progress(task="Comparing documents", done=0, total=1, unit=""))
        near = near_duplicates(rows, rows.standing // 2, original, rows.shingles_of, what.near_similarity, num_bands=NUM_BANDS)
        bus.publish(Progress(task="Comparing documents", done=1, total=1, unit=""))
    crash_point("prepare.after_duplicates")
    for reason, number in (("duplicates: duplicate", int((original != NONE).sum())), ("near_duplicates: near_duplicate", len(near))):
        if number:
            account.dropped[reason] = number
    if not rows.num_documents:
        remove_tree(folder)
        raise _none_left(account)
    stays = original == NONE
    stays[list(near)] = False
    held_out = _held_out_anew(rows, stays, corpus.settings.validation_fraction)
    if held_out:
        bus.publish(Notice(message=f"cleaning left no held-out document: {len(held_out):,} of those that are left are held out instead"))
    return CleanedCorpus(
        folder,
        rows,
        original,
        near,
        account.report,
        account.dropped,
        account.changes,
        account.report.places,
        account.num_documents,
        plan.num_bytes,
        held_out,
    )


def _held_out_anew(rows: _Rows, stays: NDArray[np.bool_], fraction: float) -> frozenset[int]:
    """When no held-out document stays: the share of the training documents that have the lowest keys, at least one; never the only one."""
    order = rows.order
    training = np.flatnonzero(stays & (order == SPLIT_ORDER.index(TRAIN)))
    if not fraction or len(training) < 2 or (stays & (order == SPLIT_ORDER.index(VALIDATION))).any():
        return frozenset()
    keys = np.concatenate(list(rows.pieces(0)))[training]
    lowest = np.argsort(keys, kind="stable")[: max(1, round(len(training) * fraction))]
    return frozenset(training[lowest].tolist())


def _run(job: CleanSlices, due: list[int], workers: int, engine: Engine, num_bytes: int, bus: EventBus) -> Generator[tuple[int, int]]:
    if engine == "ray":
        return in_ray(job, due, workers, notify=lambda line: bus.publish(Notice(message=f"cleaning with {line}")))
    count = min(workers or min(usable_cores(), num_bytes // _BYTES_WORTH_A_WORKER), len(due))
    return (in_worker_processes if count > 1 else in_this_process)(job, due, max(1, count))


def _working_folder(output: Path, corpus: Corpus, plan: Plan, what: CleaningPlan, keeps_dropped: bool) -> Path:
    """The folder for exactly this work, with the slices of a killed run in it; of other work it is emptied."""
    made_from = {
        "version": [_VERSION, RULES_VERSION],
        "plan": plan.to_json(),
        "skip_bad": corpus.settings.skip_bad,
        "what": plain_values(asdict(what)),
        "tests": [hash_file(expanded(path)).digest for path in what.tests],
        "keeps_dropped": keeps_dropped,
    }
    key = digest(made_from)
    folder = output / WORK_FOLDER
    mark = folder / "made_from.json"
    if not mark.exists() or read_json(mark).get("key") != key:
        remove_tree(folder)
        make_directory(folder)
        write_json(mark, {"key": key})
    return folder


@contextlib.contextmanager
def no_unused_work(output: Path) -> Generator[None]:
    """On a failure of the block, remove a working folder without a cleaned slice: nothing in it is worth going on with."""
    try:
        yield
    except BaseException:
        folder = output / WORK_FOLDER
        if not any(folder.glob("slice-*.account.json")):
            with contextlib.suppress(StorageError):
                remove_tree(folder)
        raise


def plain_values(value: object) -> object:
    """Settings as JSON-able values in one order."""
    if isinstance(value, dict):
        return {str(key): plain_values(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain_values(item) for item in value]
    return sorted(value) if isinstance(value, frozenset) else value


@dataclass
class _Account:
    report: BadRecords = field(default_factory=BadRecords)
    dropped: Counter[str] = field(default_factory=Counter)
    changes: Counter[str] = field(default_factory=Counter)
    num_documents: int = 0


def _account(all_files: list[SliceFiles], corpus: Corpus) -> _Account:
    total = _Account()
    for files in all_files:
        found = read_json(files.account)
        total.num_documents += found["num_documents"]
        total.dropped.update(found["reasons"])
        total.changes.update(found["changes"])
        total.dropped.update({f"read: {reason}": count for reason, count in found["left_out"].items()})
        total.report.num_bad += found["num_bad"]
        for reason, where in found["places"]:
            total.report.remember(reason, where)
        total.report.examples += found["examples"]
        if found["first_replaced"]:
            total.report.num_replaced += found["num_replaced"]
            total.report.first_replaced = total.report.first_replaced or tuple(found["first_replaced"])
    total.report.num_documents = total.num_documents
    total.report.check(corpus.settings.max_bad_fraction, corpus.settings.flags)
    return total


def _none_left(account: _Account) -> DataError:
    shown = ", ".join(f"{number:,} {reason}" for reason, number in account.dropped.most_common(4))
    return DataError(
        f"cleaning left none of {account.num_documents:,} documents ({shown})",
        remedy="choose other steps (--cleaning none for none at all), another --language, or look at what went with --keep-dropped",
    )


class _Rows:
    """Keys of all documents, read from the slices' files row by row."""

    def __init__(self, files: list[SliceFiles], has_bands: bool) -> None:
        self._num_rows = num_rows(has_bands)
        self.files = files
        self.counts = [path.keys.stat().st_size // 8 // self._num_rows for path in files]
        self._firsts = np.cumsum([0, *self.counts])
        self.num_documents = int(self._firsts[-1])

    def pieces(self, row: int) -> Generator[UInt64Array]:
        """See `KeyRows`."""
        for files, count in zip(self.files, self.counts, strict=True):
            yield np.fromfile(files.keys, dtype=np.uint64, count=count, offset=row * count * 8)

    @property
    def order(self) -> NDArray[np.uint8]:
        """Place of each document's split in SPLIT_ORDER."""
        return self._small(self._num_rows - 2)

    @property
    def standing(self) -> NDArray[np.uint8]:
        """See `standing`."""
        return self._small(self._num_rows - 1)

    def _small(self, row: int) -> NDArray[np.uint8]:
        parts = [piece.astype(np.uint8) for piece in self.pieces(row)]
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.uint8)

    def record_of(self, index: int) -> dict[str, Any]:
        """The document of a number."""
        number = int(np.searchsorted(self._firsts, index, side="right")) - 1
        files, count, place = self.files[number], self.counts[number], index - int(self._firsts[number])
        offset = int(np.fromfile(files.keys, dtype=np.uint64, count=1, offset=((self._num_rows - 3) * count + place) * 8)[0])
        with files.kept.open("rb") as file:
            file.seek(offset)
            return orjson.loads(file.readline())

    def shingles_of(self, index: int) -> UInt64Array:
        """The word 5-grams of a document."""
        return shingles(self.record_of(index)["text"])


class _Names:
    def __init__(self, rows: _Rows) -> None:
        self._rows = rows

    def of(self, index: int) -> str:
        return str(self._rows.record_of(index)["id"])


def _document(record: dict[str, Any]) -> Document:
    metadata = record["metadata"]
    if record["score"] is not None:  # a field of the source stays, and one of this score from an earlier preparation needs no other
        before = metadata.get("quality")
        is_own = "quality" not in metadata or (isinstance(before, float) and before == record["score"])
        name = "quality" if is_own else "quality_score"
        metadata = {**metadata, name: record["score"]}
    return Document(
        record["id"],
        record["text"],
        record["source"],
        record["position"],
        split=record["split"],
        metadata=metadata,
        is_continued=record["is_continued"],
    )
