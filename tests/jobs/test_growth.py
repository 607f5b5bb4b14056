"""What a look at a growing cache proposes, and what it does not disturb."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from tests.cache.toy import ToyCache
from tests.training.test_plan import make_plan

from llm_training.cache.pins import Pin, pin_all
from llm_training.cache.view import PackedView
from llm_training.events import Notice
from llm_training.jobs.growth import CacheWatch, GrowthFinder
from llm_training.training.pacing import Pacer
from llm_training.training.state import TrainState


class Feed:
    """Knows a pin; with more rows, epochs would take twice the steps."""

    def __init__(self, cache: ToyCache) -> None:
        self.store, self.view = cache.store(), cache.view()
        self.pin = pin_all(self.view)
        self.adopted: PackedView | None = None

    def adopt(self, _store: object, view: PackedView) -> None:
        self.adopted = view

    def total_after(self, _step: int, _rows: int) -> int:
        return 200


def finder(cache: ToyCache, feed: Feed, pacer: Pacer | None = None, **plan: Any) -> tuple[GrowthFinder, TrainState, list[Notice]]:
    said: list[Notice] = []
    context = SimpleNamespace(bus=SimpleNamespace(publish=said.append), config=SimpleNamespace(cache=SimpleNamespace(dir=str(cache.root))))
    state = TrainState(make_plan(total_steps=100, first_total_steps=100, **plan), step=10)
    return GrowthFinder(context, state, feed, pacer), state, said  # type: ignore[arg-type]


@pytest.fixture
def cache(tmp_path: Path) -> ToyCache:
    toy = ToyCache(tmp_path)
    toy.build(3)
    return toy


def test_a_look_finds_new_chunks_once_and_plans_their_rows(cache: ToyCache) -> None:
    feed = Feed(cache)
    watch = CacheWatch(cache.root, feed.store, feed.view)
    assert watch.look(feed.pin) is None
    cache.build(5)
    found = watch.look(feed.pin)
    assert found is not None
    store, view, growth = found
    assert growth.pin.ranges == ((0, 4),)
    assert sorted(view.records) == sorted(store.records["train"]) == [0, 1, 2, 3, 4]
    assert watch.look(growth.pin) is None
    with mock.patch("llm_training.jobs.growth.ChunkStore.open") as opened:
        assert watch.look(growth.pin) is None
    opened.assert_not_called()


def test_a_proposal_holds_the_pin_and_the_total(cache: ToyCache) -> None:
    feed = Feed(cache)
    find, _, said = finder(cache, feed)
    cache.build(4)
    proposed = find.propose()
    assert proposed is not None
    assert Pin.from_json(proposed["pin"]).ranges == ((0, 3),)
    assert proposed["total_steps"] == 200
    assert feed.adopted is not None
    assert said == []


@pytest.mark.parametrize(("seconds", "total"), [(0.5, 190), (2.0, 100), (0.1, 200)], ids=["time-bound", "slower", "epochs-bound"])
def test_under_a_time_budget_a_join_takes_no_more_than_fits(cache: ToyCache, seconds: float, total: int) -> None:
    """Nor does it shorten the run: drift is the pacer's to correct, at its own marks."""
    feed, pacer = Feed(cache), Pacer(deadline_seconds=90.0)
    for _ in range(20):
        pacer.saw_step(seconds)
    find, state, _ = finder(cache, feed, pacer)
    cache.build(4)
    assert state.elapsed_seconds == 0.0
    proposed = find.propose()
    assert proposed is not None
    assert proposed["total_steps"] == total


def test_a_cache_that_cannot_be_read_just_now_is_a_warning(cache: ToyCache) -> None:
    feed = Feed(cache)
    find, _, said = finder(cache, feed)
    cache.build(4)
    metadata = cache.directory / "cache_metadata.json"
    content = metadata.read_bytes()
    metadata.write_bytes(content[:-20])
    assert find.propose() is None
    assert find.propose() is None
    assert [notice.level for notice in said] == ["warning"], "said once"
    metadata.write_bytes(content)
    assert find.propose() is not None


def test_once_the_rate_falls_the_looks_end(cache: ToyCache) -> None:
    feed = Feed(cache)
    find, _, said = finder(cache, feed, decay_start=0.05)
    cache.build(4)
    assert find.propose() is None
    assert find.propose() is None
    assert len(said) == 1
    assert "wait for the next run" in said[0].message
    assert feed.adopted is None
