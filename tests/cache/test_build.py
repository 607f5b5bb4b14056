"""C-6, C-8 and C-11, and what a build gives: the same bytes from any order, worker, stop and mode."""

import json
from functools import partial

import numpy as np
import pytest
from tests.cache.toy import SEPARATOR, ToyCache, ToyDocument, ToyEncoder, open_toy, toy_documents, toy_settings, toy_slices

from llm_training.cache.encoding import encode_slice
from llm_training.cache.store import ChunkStore
from llm_training.errors import ConfigError, DataError, IntegrityError, LockedError
from llm_training.storage.locks import FileLock


def texts_of(store: ChunkStore, split: str, number: int) -> list[str]:
    chunk = store.read(split, number)
    documents = np.split(chunk.tokens, chunk.document_offsets[1:-1])
    assert all(document[-1] == SEPARATOR for document in documents)
    return [bytes(document[:-1].astype(np.uint8)).decode() for document in documents if len(document)]


def test_a_store_holds_each_split_of_each_slice(built):
    store = built.store()
    for number in range(4):
        for split in ("train", "validation"):
            expected = [document.text for document in toy_documents(number) if document.split == split]
            assert texts_of(store, split, number) == expected
    stored = json.loads((built.directory / "cache_metadata.json").read_text())
    training = [document for number in range(4) for document in toy_documents(number) if document.split == "train"]
    assert stored["totals"]["train"]["num_documents"] == len(training)
    assert stored["totals"]["train"]["text_bytes"] == sum(len(document.text.encode()) for document in training)
    assert stored["totals"]["train"]["num_tokens"] == sum(len(document.text.encode()) + 1 for document in training)
    assert not (built.directory / "build.jsonl").exists()


def test_the_validation_set_is_frozen_with_the_first_plan(built):
    before = sorted(path.name for path in (built.directory / "validation").iterdir())
    assert built.build(6).built == (4, 5)
    assert sorted(path.name for path in (built.directory / "validation").iterdir()) == before
    store = built.store()
    assert (sorted(store.records["train"]), sorted(store.records["validation"])) == (list(range(6)), list(range(4)))


@pytest.mark.parametrize("compression", ["lz4", "zstd", "none"])
@pytest.mark.parametrize("vocab_size", [257, 70_000])
def test_chunks_are_the_same_bytes_in_any_order_and_any_number_of_stops(tmp_path, compression, vocab_size):
    settings = toy_settings(vocab_size, compression)
    source = partial(open_toy, vocab_size)
    once, piecewise = ToyCache(tmp_path / "once"), ToyCache(tmp_path / "piecewise")
    once.build(settings=settings, source=source)
    for _ in range(4):
        assert len(piecewise.build(settings=settings, source=source, should_stop=lambda: True).built) == 1
    assert piecewise.build(settings=settings, source=source).is_complete
    assert piecewise.files() == once.files()


def test_growing_in_steps_gives_the_chunks_of_building_at_once(tmp_path):
    grown, whole = ToyCache(tmp_path / "grown"), ToyCache(tmp_path / "whole")
    grown.build(2)
    grown.build(5)
    whole.build(5)
    for number in range(5):
        assert grown.store().records["train"][number] == whole.store().records["train"][number]


@pytest.fixture
def importable(monkeypatch, repository):
    """Spawned workers find the toy source by the parent's module path."""
    monkeypatch.syspath_prepend(repository)


def test_worker_processes_give_the_same_files(tmp_path, importable):
    alone, together = ToyCache(tmp_path / "alone"), ToyCache(tmp_path / "together")
    alone.build(6)
    seen = []
    result = together.build(6, workers=2, progress=seen.append)
    assert result.is_complete
    assert together.files() == alone.files()
    assert [(step.done_chunks, step.due_chunks) for step in seen] == [(done, 6) for done in range(1, 7)]
    assert seen[-1].text_bytes == result.text_bytes


@pytest.mark.parametrize("threads", [2, 5])
def test_threads_give_the_same_files(tmp_path, threads):
    alone, together = ToyCache(tmp_path / "alone"), ToyCache(tmp_path / "together")
    alone.build(9)
    result = together.build(9, threads=threads)
    assert result.is_complete and result.built == tuple(range(9))
    assert together.files() == alone.files()


def test_a_stop_among_threads_leaves_whole_chunks_to_go_on_with(tmp_path):
    alone, together = ToyCache(tmp_path / "alone"), ToyCache(tmp_path / "together")
    alone.build(9)
    assert not together.build(9, threads=3, should_stop=lambda: True).is_complete
    assert together.store().problems(hashes=True) == []
    assert together.build(9, threads=3).is_complete
    assert together.files() == alone.files()


@pytest.mark.parametrize("workers", [1, 2])
def test_so_many_chunks_are_built_and_nothing_beyond_them(tmp_path, importable, workers):
    cache = ToyCache(tmp_path / "cache")
    result = cache.build(9, max_chunks=2, threads=3, workers=workers)
    assert (result.built, result.is_complete, result.strangers) == ((0, 1), False, ())
    assert sorted(path.name for path in cache.directory.glob("chunk_*")) == ["chunk_000000.arrow", "chunk_000001.arrow"]
    assert cache.build(9, max_chunks=100).is_complete


def test_what_a_stopped_build_was_ahead_with_is_no_stranger(tmp_path):
    cache = ToyCache(tmp_path / "cache")
    assert cache.build(9, threads=3, should_stop=lambda: True).strangers == ()


def broken_source():
    raise DataError("no such corpus", where="somewhere", remedy="look elsewhere")


def test_an_error_in_a_worker_comes_through_whole(cache, importable):
    with pytest.raises(DataError, match="no such corpus; at somewhere; look elsewhere"):
        cache.build(3, workers=2, source=broken_source)
    with pytest.raises(DataError, match="no such corpus; at somewhere; look elsewhere"):
        cache.build(3, threads=2, source=broken_source)


def test_an_edited_source_is_refused(built):
    slices = toy_slices(5)
    slices[1]["sha256"] = "0" * 64
    from llm_training.cache.build import build_store

    with pytest.raises(IntegrityError, match="slice 1 of the source is not what it was") as caught:
        build_store(built.directory, toy_settings(), slices, open_toy)
    assert caught.value.exit_code == 4
    with pytest.raises(IntegrityError, match="the source has 3 slices, 4 were planned"):
        built.build(3)


def test_other_content_under_the_same_name_is_refused(built):
    with pytest.raises(IntegrityError, match="holds other data"):
        built.build(settings=toy_settings(fingerprint="0" * 64))
    with pytest.raises(IntegrityError, match="was built with tokenizer"):
        built.build(settings=toy_settings(vocab_size=300), source=partial(open_toy, 300))
    with pytest.raises(IntegrityError, match="was built with tokenizer"):
        built.build(6, source=partial(open_toy, 300))
    with pytest.raises(ConfigError, match="compressed with lz4, zstd was asked for"):
        built.build(settings=toy_settings(compression="zstd"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "backwards"}, "unknown build mode 'backwards'"),
        ({"settings": toy_settings(compression="gzip")}, "unknown compression 'gzip'"),
    ],
)
def test_unknown_choices_list_the_known(cache, options, message):
    with pytest.raises(ConfigError, match=message):
        cache.build(**options)


def test_inverse_mode_finds_and_replaces_missing_and_damaged_chunks(built):
    whole = built.files()
    (built.directory / "chunk_000001.arrow").unlink()
    flipped = built.directory / "chunk_000003.arrow"
    data = bytearray(flipped.read_bytes())
    data[len(data) // 2] ^= 4
    flipped.write_bytes(data)
    (built.directory / "validation" / "chunk_000000.arrow").write_bytes(b"")
    result = built.build(mode="inverse")
    assert [(problem.split, problem.number) for problem in result.damaged] == [("train", 1), ("train", 3), ("validation", 0)]
    assert result.built == (0, 1, 3)
    assert built.files() == whole


def test_normal_mode_replaces_what_has_the_wrong_size(built):
    whole = built.files()
    (built.directory / "chunk_000002.arrow").write_bytes(b"short")
    assert built.build().built == (2,)
    assert built.files() == whole
    assert built.build().built == ()


def test_lost_metadata_is_built_again_with_the_frozen_validation_set(built):
    built.build(6)
    whole = built.files()
    (built.directory / "cache_metadata.json").unlink()
    assert len(built.build(6).built) == 6
    assert built.files() == whole


def test_strangers_are_reported_and_ignored(built):
    (built.directory / "chunk_000077.arrow").write_bytes(b"not ours")
    assert built.build().strangers == ("chunk_000077.arrow",)
    assert sorted(built.store().records["train"]) == [0, 1, 2, 3]


def test_a_forced_rebuild_swaps_whole_stores(built):
    whole = built.files()
    (built.directory / "chunk_000002.arrow").write_bytes(b"damaged")
    assert built.build(mode="force_rebuild").built == (0, 1, 2, 3)
    assert built.files() == whole
    built.build(mode="force_rebuild", settings=toy_settings(compression="zstd"))
    assert built.store().settings.compression == "zstd"
    assert built.store().problems(hashes=True) == []


def test_a_forced_rebuild_leaves_the_old_store_valid_until_the_new_is_whole(built, monkeypatch):
    whole = built.files()
    result = built.build(mode="force_rebuild", should_stop=lambda: True)
    assert not result.is_complete
    assert {name: data for name, data in built.files().items() if ".rebuilding" not in name} == whole
    assert len(built.build(mode="force_rebuild").built) == 3
    assert built.files() == whole
    for point in ("before_swap", "in_swap", "after_swap"):
        monkeypatch.setenv("LLM_TRAINING_FAULT", f"cache.{point}:raise")
        with pytest.raises(Exception, match="injected fault"):
            built.build(mode="force_rebuild")
        monkeypatch.delenv("LLM_TRAINING_FAULT")
        built.build()
        assert {name: data for name, data in built.files().items() if ".rebuilding" not in name} == whole


def test_two_builders_exclude_each_other(cache):
    from llm_training.cache.build import lock_of

    with FileLock(lock_of(cache.directory)), pytest.raises(LockedError, match="the cache toy-ffffffff is in use by process"):
        cache.build()
    assert cache.build().is_complete


def test_a_giant_document_takes_several_rows_and_one_separator(tmp_path, monkeypatch):
    import llm_training.cache.chunk as chunk_module

    monkeypatch.setattr(chunk_module, "PART_BYTES", 32)
    cache = ToyCache(tmp_path)
    cache.build(1, source=partial(open_toy, size=200))
    store = cache.store()
    documents = [document for document in toy_documents(0, size=200) if document.split == "train"]
    assert texts_of(store, "train", 0) == [document.text for document in documents]
    record = store.records["train"][0]
    assert (record.num_documents, record.num_rows) == (len(documents), sum(-(-(len(d.text.encode()) + 1) // 16) for d in documents))
    assert [p.id for p in store.provenance("train", 0)] == [document.id for document in documents]


def test_documents_that_go_on_become_one_and_the_last_may_lack_its_separator():
    parts = [("whole", "abc", False), ("a", "de", True), ("b", "f", True), ("c", "g", False), ("open", "hi", True)]
    documents = [ToyDocument(name, text, "f", position, "train", None, goes_on) for position, (name, text, goes_on) in enumerate(parts)]
    table = encode_slice(documents, ToyEncoder(), ["train"])["train"]
    assert (table.ids, table.positions.tolist()) == (["whole", "a", "open"], [0, 1, 4])
    assert (table.lengths.tolist(), table.text_bytes.tolist()) == ([4, 5, 2], [3, 4, 2])
    assert bytes(np.where(table.tokens == SEPARATOR, ord("|"), table.tokens).astype(np.uint8)) == b"abc|defg|hi"


@pytest.mark.parametrize("characters", [1, 4, 1 << 22])
def test_texts_and_ready_made_ids_keep_their_order(monkeypatch, characters):
    monkeypatch.setattr("llm_training.cache.encoding.ENCODE_CHARACTERS", characters)
    documents = [
        ToyDocument(str(position), "" if ids else "ab", "f", position, "train", ids)
        for position, ids in enumerate([None, (1, 2, 3), None, None, (4,), (5,)])
    ]
    table = encode_slice(documents, ToyEncoder(), ["train", "validation"])["train"]
    assert table.lengths.tolist() == [3, 4, 3, 3, 2, 2]
    assert table.tokens.tolist() == [97, 98, 256, 1, 2, 3, 256, 97, 98, 256, 97, 98, 256, 4, 256, 5, 256]


def test_ready_made_ids_outside_the_vocabulary_are_bad_data():
    with pytest.raises(DataError, match="token id 257 is outside the vocabulary of 257; at doc7"):
        encode_slice([ToyDocument("doc7", "", "f", 7, "train", (5, 257))], ToyEncoder(), ["train"])


def wild_source():
    read, encoder = open_toy()
    encoder.encode_documents = lambda texts: (np.array([9999], np.uint32), np.array([0, 1]))
    return lambda number: read(number)[:1], encoder


def test_an_encoder_that_leaves_its_vocabulary_is_refused(cache):
    with pytest.raises(IntegrityError, match="token id 9999 is outside the vocabulary of 257"):
        cache.build(1, source=wild_source)


def test_opening_nothing_says_what_to_do(tmp_path):
    with pytest.raises(IntegrityError, match=r"no cache here.*build it with llm-build-cache"):
        ChunkStore.open(tmp_path)


@pytest.mark.slow
def test_many_chunks_open_quickly(cache):
    import time
    from dataclasses import replace

    cache.build(1)
    store = cache.store()
    record = store.records["train"][0]
    store.plan = toy_slices(100_000)
    store.records["train"] = {number: replace(record, number=number) for number in range(100_000)}
    store.commit()
    # Processor time, not the clock's: other work on the machine is not what is tested.
    spent: list[float] = []
    for _ in range(2):
        began = time.process_time()
        cache.store()
        spent.append(time.process_time() - began)
    assert min(spent) < 2.0
