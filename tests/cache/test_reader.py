"""Rows, pins and C-9: a trainer that reads while a builder appends keeps its order."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.cache.toy import SEPARATOR, ToyCache, toy_documents

from llm_training.cache import store as store_module
from llm_training.cache.batch import Batch, empty_rows
from llm_training.cache.chunk import ChunkTokens
from llm_training.cache.held_out import held_out_documents
from llm_training.cache.packing import STRATEGIES, pack
from llm_training.cache.pins import Pin, check_pin, find_growth, pin_all
from llm_training.cache.reader import PackedDataset, lay_out
from llm_training.cache.store import ChunkStore
from llm_training.errors import ConfigError, DataError, IntegrityError


def open_dataset(cache: ToyCache, sequence_length: int = 32, strategy: str = "best_fit", **options) -> PackedDataset:
    view = cache.view(sequence_length, strategy)
    return PackedDataset(cache.store(), view, pin_all(view), **options)


def reference_row(stream, pieces, length, is_stream):
    """Input and label lists of a row, the slow and obvious way."""
    inputs, labels = [], []
    for position, (_, start, count) in enumerate(pieces):
        inputs += stream[start : start + count]
        labels += stream[start + 1 : start + count]
        end = start + count
        if position + 1 < len(pieces):
            labels.append(stream[pieces[position + 1][1]])
        elif end < len(stream) and (is_stream or stream[end - 1] != SEPARATOR):
            labels.append(stream[end])
        else:
            labels.append(-100)
    padding = length - len(inputs)
    return inputs + [SEPARATOR] * padding, labels + [-100] * padding


@settings(deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 9), max_size=30), min_size=1, max_size=12),
    st.integers(1, 16),
    st.sampled_from(sorted(STRATEGIES)),
    st.booleans(),
)
def test_rows_and_labels_equal_the_obvious_construction(documents, length, strategy, is_open):
    streams = [[*document, SEPARATOR] for document in documents]
    if is_open and len(streams[-1]) > 1:
        streams[-1].pop()
    stream = [token for document in streams for token in document]
    offsets = np.cumsum([0, *map(len, streams)])
    plan = pack(offsets, length, strategy)
    packed = lay_out(plan, ChunkTokens(np.array(stream, dtype=np.uint16), offsets), SEPARATOR, strategy)
    backwards = empty_rows(plan.num_rows, length, np.dtype(np.uint16))
    packed.copy_rows(np.arange(plan.num_rows)[::-1], np.arange(plan.num_rows), backwards)
    batch = backwards.part(0, plan.num_rows).to_batch()
    batch = Batch(batch.input_ids[::-1], batch.labels[::-1])
    for row in range(plan.num_rows):
        part = slice(plan.row_offsets[row], plan.row_offsets[row + 1])
        pieces = list(zip(plan.documents[part].tolist(), plan.starts[part].tolist(), plan.lengths[part].tolist(), strict=True))
        inputs, labels = reference_row(stream, pieces, length, strategy == "greedy")
        assert batch.input_ids[row].tolist() == inputs
        assert batch.labels[row].tolist() == labels


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_any_selection_of_rows_in_any_order(built, strategy):
    dataset = open_dataset(built, strategy=strategy)
    everything = dataset.rows(np.arange(len(dataset)))
    wanted = np.random.default_rng(0).integers(0, len(dataset), 50)
    small = open_dataset(built, strategy=strategy, memory_bytes=1)
    for reader in (dataset, small):
        batch = reader.rows(wanted)
        assert np.array_equal(batch.input_ids, everything.input_ids[wanted])
        assert np.array_equal(batch.labels, everything.labels[wanted])
    assert len(dataset.rows(np.zeros(0, dtype=np.int64))) == 0
    with pytest.raises(IndexError, match="row numbers go from 0"):
        dataset.rows(np.array([len(dataset)]))


def test_segments_number_the_documents_of_a_row(built):
    batch = open_dataset(built, with_segments=True).rows(np.arange(5))
    assert batch.segment_ids is not None
    for inputs, segments in zip(batch.input_ids, batch.segment_ids, strict=True):
        expected, segment, previous = [], 0, None
        for token in inputs:
            segment += token == SEPARATOR and previous not in (SEPARATOR, None)
            expected.append(segment)
            previous = token
        assert segments.tolist() == expected


def test_micro_batches_are_parts_of_the_batch(built):
    batch = open_dataset(built, with_segments=True).rows(np.arange(7))
    parts = list(batch.micro_batches(3))
    assert [len(part) for part in parts] == [3, 3, 1]
    assert np.array_equal(np.concatenate([part.labels for part in parts]), batch.labels)
    assert sum(part.num_counted for part in parts) == batch.num_counted == int((batch.labels != -100).sum())


def test_describe_names_the_documents_of_a_row(built):
    dataset = open_dataset(built, 16)
    wanted = np.array([len(dataset) - 1, 0, 3])
    texts = {document.id: document.text.encode() + b"\0" for number in range(4) for document in toy_documents(number)}
    batch = dataset.rows(wanted)
    for description, inputs, index in zip(dataset.describe(wanted), batch.input_ids, wanted, strict=True):
        assert description.row == index
        expected = b"".join(texts[piece.id][piece.start : piece.start + piece.num_tokens] for piece in description.pieces)
        assert bytes(np.where(inputs == SEPARATOR, 0, inputs).astype(np.uint8))[: len(expected)] == expected
        assert all(piece.source == f"file{description.chunk}.txt" for piece in description.pieces)


def test_held_out_documents_come_without_separators(built):
    built.build(6)
    tokens, offsets = held_out_documents(built.store())
    expected = [document.text for number in range(4) for document in toy_documents(number) if document.split == "validation"]
    assert [bytes(part.astype(np.uint8)).decode() for part in np.split(tokens[:], offsets[1:-1])] == expected


def test_a_longer_row_needs_no_second_tokenising(built):
    short, long = open_dataset(built, 16), open_dataset(built, 128)
    tokens = [np.sort(data.rows(np.arange(len(data))).input_ids.ravel()) for data in (short, long)]
    assert [np.count_nonzero(found != SEPARATOR) for found in tokens] == [np.count_nonzero(tokens[0] != SEPARATOR)] * 2


def test_views_of_different_strategies_lie_side_by_side(built):
    assert built.view(32).directory.name == "toy-ffffffff"
    assert built.view(32, "greedy").directory.name == "toy-ffffffff.greedy"
    with pytest.raises(ConfigError, match="unknown packing strategy"):
        built.view(32, "tetris")


def test_views_are_rebuilt_to_the_same_bytes(built, tmp_path):
    view = built.view(32)
    whole = {path.name: path.read_bytes() for path in view.directory.iterdir()}
    view.path(1).unlink()
    data = bytearray(view.path(2).read_bytes())
    data[-20] ^= 1
    view.path(2).write_bytes(data)
    assert [problem.split(": ")[1][:12] for problem in view.problems()] == ["row plan 1 i", "content hash"]
    rebuilt = built.view(32, check_content=True)
    assert {path.name: path.read_bytes() for path in rebuilt.directory.iterdir()} == whole
    (view.directory / "cache_metadata.json").write_text("{}")
    assert {path.name: path.read_bytes() for path in built.view(32).directory.iterdir()} == whole


def test_view_totals_are_those_of_its_rows(built):
    view = built.view(32)
    batch = open_dataset(built, 32).rows(np.arange(view.stats.num_rows))
    totals = built.store().totals()["train"]
    assert (view.stats.num_tokens, view.stats.num_documents) == (totals["num_tokens"], totals["num_documents"])
    assert view.stats.num_padding_tokens == batch.input_ids.size - totals["num_tokens"]


def test_a_pin_keeps_row_numbers_while_the_cache_grows_and_fills_gaps(cache):
    cache.build(5)
    store, view = cache.store(), cache.view()
    for number in (1, 3):
        del view.records[number]
    pin = pin_all(view)
    assert (pin.ranges, pin.num_rows) == (((0, 0), (2, 2), (4, 4)), sum(view.records[number].num_rows for number in (0, 2, 4)))
    before = PackedDataset(store, view, pin)
    cache.build(6)
    growth = find_growth(cache.view(), Pin.from_json(pin.to_json()))
    assert growth.has_grown
    assert growth.pin.ranges == ((0, 0), (2, 2), (4, 4), (1, 1), (3, 3), (5, 5))
    after = PackedDataset(cache.store(), cache.view(), growth.pin)
    assert (len(before), len(after)) == (growth.old_sequences, growth.new_sequences)
    old = np.arange(len(before))
    assert np.array_equal(before.rows(old).input_ids, after.rows(old).input_ids)
    assert not find_growth(cache.view(), growth.pin).has_grown


def test_a_reader_sees_every_chunk_while_a_builder_commits(cache, monkeypatch):
    """The journal goes into the metadata and away while somebody opens the store."""
    cache.build(2)
    monkeypatch.setattr(ChunkStore, "commit", lambda self: None)
    cache.build(4)
    monkeypatch.undo()
    original, committed = store_module.read_sealed, []

    def read_sealed(path, kind, version):
        content = original(path, kind, version)
        if path.name == "cache_metadata.json" and not committed:
            committed.append(path)
            cache.store().commit()
        return content

    monkeypatch.setattr(store_module, "read_sealed", read_sealed)
    assert sorted(cache.store().records["train"]) == [0, 1, 2, 3]
    assert committed
    assert sorted(cache.store().records["train"]) == [0, 1, 2, 3]


def test_a_pin_is_refused_over_other_tokens_or_missing_chunks(built, tmp_path):
    pin = pin_all(built.view())
    other = ToyCache(tmp_path / "other")
    from functools import partial

    from tests.cache.toy import open_toy

    other.build(source=partial(open_toy, seed=1))
    with pytest.raises(IntegrityError, match="holds other tokens or rows than the run was started with"):
        check_pin(other.view(), pin)
    view = built.view()
    del view.records[2]
    with pytest.raises(IntegrityError, match="1 chunks of the run are missing from the cache, the first is 2"):
        check_pin(view, pin)


def test_recompressing_a_store_keeps_pins_and_views_valid(built):
    from tests.cache.toy import toy_settings

    view = built.view()
    pin, files = pin_all(view), {path.name: path.read_bytes() for path in view.directory.iterdir()}
    built.build(mode="force_rebuild", settings=toy_settings(compression="zstd"))
    assert {path.name: path.read_bytes() for path in built.view().directory.iterdir()} == files
    assert len(PackedDataset(built.store(), built.view(), pin)) == pin.num_rows


def no_training_text():
    from tests.cache.toy import open_toy

    read, encoder = open_toy()
    return lambda number: [document for document in read(number) if document.split != "train"], encoder


def test_a_cache_without_training_rows_is_refused(cache):
    cache.build(2, source=no_training_text)
    with pytest.raises(DataError, match="the cache holds no training rows"):
        pin_all(cache.view())


def test_a_plan_that_does_not_fit_its_chunk_is_refused():
    offsets = np.array([0, 5, 9])
    plan = pack(offsets, 4, "greedy")
    with pytest.raises(IntegrityError, match="the row plan does not fit its chunk"):
        lay_out(plan, ChunkTokens(np.zeros(8, np.uint16), offsets), SEPARATOR, "greedy")
