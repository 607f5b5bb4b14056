import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_training.cache.order import EpochPosition, Join, Order, ShuffleShape, epoch_samples, shuffle_shape
from llm_training.errors import ConfigError

SHAPES = st.builds(ShuffleShape, st.integers(1, 7), st.integers(1, 5))
SMALL = ShuffleShape(4, 3)


@settings(deadline=None)
@given(st.integers(0, 2**64), st.integers(1, 120), SHAPES, st.integers(0, 3))
def test_every_row_exactly_once_in_every_epoch(seed, num_rows, shape, epoch):
    rows = Order(seed=seed, num_rows=num_rows, shape=shape).rows(epoch * num_rows, (epoch + 1) * num_rows)
    assert sorted(rows.tolist()) == list(range(num_rows))


@settings(deadline=None)
@given(st.integers(1, 90), SHAPES, st.integers(0, 250), st.integers(0, 60), st.integers(0, 60))
def test_any_range_is_the_slice_of_the_whole(num_rows, shape, start, first, second):
    whole = Order(seed=1, num_rows=num_rows, shape=shape).rows(0, 400)
    order = Order(seed=1, num_rows=num_rows, shape=shape)
    stop = start + first
    assert order.rows(start, stop).tolist() == whole[start:stop].tolist()
    assert order.rows(stop, stop + second).tolist() == whole[stop : stop + second].tolist()


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 60), st.lists(st.tuples(st.integers(0, 40), st.integers(0, 30)), max_size=4), SHAPES, st.sampled_from([1.0, 0.8, 0.35])
)
def test_joins_show_each_row_at_most_once_an_epoch(num_rows, steps, shape, fraction):
    joins, sample, rows = [], 0, num_rows
    for distance, growth in steps:
        sample, rows = sample + distance, rows + growth
        joins.append(Join(sample, rows))
    order = Order(seed=3, num_rows=num_rows, joins=joins, shape=shape, fraction=fraction)
    seen: dict[int, list[int]] = {}
    samples = sample + 3 * rows
    for index, row in enumerate(order.rows(0, samples).tolist()):
        known = num_rows if not joins or index < joins[0].sample else max(join.num_rows for join in joins if join.sample <= index)
        assert 0 <= row < known
        position = order.position(index)
        assert position.offset == len(seen.setdefault(position.epoch, []))
        seen[position.epoch].append(row)
    for epoch, taken in seen.items():
        assert len(set(taken)) == len(taken)
        if epoch + 1 in seen:
            assert len(taken) in {epoch_samples(count, fraction) for count in [num_rows, *(join.num_rows for join in joins)]}
    last_full = max(seen) - 1
    assert len(seen[last_full]) == epoch_samples(rows, fraction)


@settings(deadline=None, max_examples=40)
@given(st.integers(5, 60), st.integers(1, 4), st.integers(0, 30), SHAPES)
def test_a_join_changes_nothing_before_it_and_completes_the_open_epoch(num_rows, quarter, growth, shape):
    sample = num_rows * quarter // 5
    before = Order(seed=5, num_rows=num_rows, shape=shape)
    after = Order(seed=5, num_rows=num_rows, joins=[Join(sample, num_rows + growth)], shape=shape)
    assert after.rows(0, sample).tolist() == before.rows(0, sample).tolist()
    assert sorted(after.rows(0, num_rows + growth).tolist()) == list(range(num_rows + growth))


def test_a_join_at_an_epoch_end_leaves_the_closed_epoch_closed():
    order = Order(seed=5, num_rows=10, joins=[Join(10, 14)], shape=SMALL)
    assert sorted(order.rows(0, 10).tolist()) == list(range(10))
    assert sorted(order.rows(10, 24).tolist()) == list(range(14))
    assert order.position(10) == EpochPosition(1, 0, 14)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 4), st.integers(1, 12), st.integers(1, 5), st.integers(0, 9))
def test_sample_i_is_the_same_for_every_split_over_ranks_and_micro_batches(world_size, global_batch, micro_batch, step):
    whole = Order(seed=9, num_rows=50, shape=SMALL).rows(step * global_batch, (step + 1) * global_batch)
    parts = []
    for rank in range(world_size):
        order = Order(seed=9, num_rows=50, shape=SMALL)
        start, stop = rank * global_batch // world_size, (rank + 1) * global_batch // world_size
        for first in range(start, stop, micro_batch):
            base = step * global_batch
            parts.append(order.rows(base + first, base + min(first + micro_batch, stop)))
    assert np.concatenate(parts).tolist() == whole.tolist()


def test_blocks_stay_together_in_windows():
    shape = ShuffleShape(8, 4)
    rows = Order(seed=2, num_rows=800, shape=shape).rows(0, 800)
    for window in rows.reshape(-1, 32):
        assert len(set((window // 8).tolist())) == 4
    assert (np.diff(rows) != 1).any()


def test_an_epoch_within_one_window_is_a_full_shuffle():
    shape = ShuffleShape(8, 16)
    positions = np.zeros((60, 60))
    for seed in range(400):
        positions[np.arange(60), Order(seed=seed, num_rows=60, shape=shape).rows(0, 60)] += 1
    expected = 400 / 60
    chi_square = ((positions - expected) ** 2 / expected).sum()
    assert chi_square < 59 * 59 + 5 * (2 * 59 * 59) ** 0.5


def test_epochs_and_seeds_differ():
    order = Order(seed=4, num_rows=100, shape=SMALL)
    assert order.rows(0, 100).tolist() != order.rows(100, 200).tolist()
    assert order.rows(0, 100).tolist() != Order(seed=5, num_rows=100, shape=SMALL).rows(0, 100).tolist()


def test_the_fraction_takes_the_first_part_of_each_epochs_own_permutation():
    whole = Order(seed=4, num_rows=100, shape=SMALL)
    part = Order(seed=4, num_rows=100, shape=SMALL, fraction=0.29)
    assert part.rows(0, 29).tolist() == whole.rows(0, 29).tolist()
    assert part.rows(29, 58).tolist() == whole.rows(100, 129).tolist()


@pytest.mark.parametrize(("rows", "fraction", "samples"), [(100, 0.29, 29), (352_217, 0.8, 281_773), (472_240, 0.8, 377_792), (3, 0.1, 1)])
def test_epoch_samples_reads_the_fraction_as_a_decimal(rows, fraction, samples):
    assert epoch_samples(rows, fraction) == samples


# fmt: off
GOLDEN = [
    19, 0, 16, 15, 17, 2, 3, 1, 14, 12, 13, 18, 8, 5, 7, 4, 10, 11, 9, 6, 3, 7, 5, 11, 1, 0, 4, 6,
    10, 2, 9, 8, 12, 25, 17, 16, 23, 24, 15, 20, 14, 13, 18, 21, 19, 22, 25, 11, 10, 9, 1, 0, 24, 2, 3, 8,
]
# fmt: on


def test_golden_order():
    order = Order(seed=1234, num_rows=20, joins=[Join(25, 26)], shape=SMALL)
    assert order.rows(0, 56).tolist() == GOLDEN


def test_large_orders_are_fast_and_small_in_memory():
    order = Order(seed=0, num_rows=200_000_000, shape=shuffle_shape(2048), joins=[Join(1_000_000, 300_000_000)])
    rows = order.rows(999_000, 1_001_000)
    assert len(set(rows.tolist())) == 2000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_rows": 0}, "the cache holds 0 rows"),
        ({"num_rows": 5, "fraction": 0.0}, "epoch fraction 0.0 is outside"),
        ({"num_rows": 5, "fraction": 1.5}, "epoch fraction 1.5 is outside"),
        ({"num_rows": 5, "shape": ShuffleShape(0, 1)}, "has a size below 1"),
        ({"num_rows": 5, "joins": [Join(3, 4)]}, "goes back behind sample 0 or 5 rows"),
        ({"num_rows": 5, "joins": [Join(3, 6), Join(2, 7)]}, "goes back behind sample 3 or 6 rows"),
    ],
)
def test_bad_orders_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        Order(**{"seed": 1, "shape": SMALL, **arguments})
