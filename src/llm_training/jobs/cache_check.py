"""Job: read everything that a cache directory holds, of whatever sources and settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from llm_training.cache.arrow_file import REPAIR_ALL
from llm_training.cache.catalog import STORES_DIRECTORY
from llm_training.cache.store import METADATA_NAME, ChunkStore
from llm_training.cache.swap import directories_with
from llm_training.cache.view import VIEWS_DIRECTORY, PackedView
from llm_training.errors import DataError, IntegrityError
from llm_training.events import EventBus, Progress


@dataclass(frozen=True)
class CacheCheck:
    """What was read and found whole: tokens of each dataset, rows of each row plan."""

    directory: str
    datasets: Mapping[str, int]
    row_plans: Mapping[str, int]

    def lines(self) -> Sequence[str]:
        """For people."""
        datasets = [f"{name}: {num_tokens:,} tokens, every chunk verified" for name, num_tokens in self.datasets.items()]
        return [*datasets, *(f"{name}: {num_rows:,} rows verified" for name, num_rows in self.row_plans.items())]


def check_cache(directory: str, bus: EventBus) -> CacheCheck:
    """Read every chunk of every dataset and every row plan, of all lengths and strategies; writes nothing.

    Raises:
        DataError: there is no cache.
        IntegrityError: parts are damaged; all of them are named.
    """
    cache, problems = Path(directory), list[str]()
    datasets: dict[str, int] = {}
    row_plans: dict[str, int] = {}
    stores = directories_with(cache / STORES_DIRECTORY, METADATA_NAME)
    views = [path for length in sorted((cache / VIEWS_DIRECTORY).glob("[0-9]*")) for path in directories_with(length, METADATA_NAME)]
    if not stores:
        raise DataError("there is no cache", where=directory, remedy="llm-build-cache SOURCE builds one; --cache.dir names another place")
    for done, path in enumerate((*stores, *views)):
        bus.publish(Progress(task="Verifying", done=done, total=len(stores) + len(views), unit="parts"))
        try:
            if path.parent.name == STORES_DIRECTORY:
                store = ChunkStore.open(path)
                problems += [f"{path.name}: {problem.reason}" for problem in store.problems(hashes=True)]
                datasets[path.name] = sum(int(total["num_tokens"]) for total in store.totals().values())
            else:
                view = PackedView.open(path)
                problems += [f"{path.parent.name}/{path.name}: {reason}" for reason in view.problems()]
                row_plans[f"{path.parent.name}/{path.name}"] = view.stats.num_rows
        except IntegrityError as error:
            problems.append(f"{error.where}: {error.what}")
    bus.publish(Progress(task="Verifying", done=len(stores) + len(views), total=len(stores) + len(views), unit="parts"))
    if problems:
        what = f"{len(problems)} parts of the cache are damaged: {'; '.join(problems)}"
        raise IntegrityError(
            what,
            where=directory,
            remedy=REPAIR_ALL,
        )
    return CacheCheck(directory, datasets, row_plans)
