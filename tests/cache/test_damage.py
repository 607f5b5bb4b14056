"""C-1 to C-6 and C-12: what is damaged, cut, swapped, inflated or mislabelled is refused, or provably the same tokens."""

import os
import random
import struct
from dataclasses import replace
from functools import partial

import numpy as np
import pyarrow as pa
import pytest
from tests.cache.toy import ToyCache, open_toy, toy_settings

from llm_training.cache.arrow_file import declared_bytes
from llm_training.cache.chunk import ChunkHeader, read_chunk, write_chunk
from llm_training.cache.encoding import TokenTable
from llm_training.cache.pins import pin_all
from llm_training.cache.reader import PackedDataset
from llm_training.cache.sealed import parse_sealed, write_sealed
from llm_training.cache.store import ChunkStore
from llm_training.errors import IntegrityError, LlmTrainingError, StorageError
from llm_training.storage.filesystem import FileSystem
from llm_training.storage.hashing import record_of

HEADER = ChunkHeader(0, "train", "t" * 64, 257, 256)


def table_of(documents, kind=np.uint16):
    count = len(documents)
    return TokenTable(
        ids=[f"d{number}" for number in range(count)],
        sources=["s"] * count,
        positions=np.arange(count),
        text_bytes=np.array([len(document) - 1 for document in documents], dtype=np.int64),
        lengths=np.array([len(document) for document in documents], dtype=np.int64),
        tokens=np.array([token for document in documents for token in document], dtype=kind),
    )


def chunk_of(documents, header=HEADER, compression="lz4"):
    data, record = write_chunk(table_of(documents, header.arrow_token_type().to_pandas_dtype()), header, compression)
    return bytes(data), record


def believed(record, data):
    """The record a forger would write: size and hash of the damaged file itself."""
    return replace(record, num_bytes=len(data), sha256=record_of(data).digest)


SMALL, SMALL_RECORD = chunk_of([[97, 98, 99, 256], [100, 101, 256]])


def test_every_single_bit_flip_of_a_small_chunk_is_refused():
    damaged = bytearray(SMALL)
    for bit in range(8 * len(SMALL)):
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(IntegrityError):
            read_chunk(bytes(damaged), SMALL_RECORD, HEADER, "here")
        damaged[bit // 8] ^= 1 << bit % 8
    assert read_chunk(bytes(damaged), SMALL_RECORD, HEADER, "here").tokens.tolist() == [97, 98, 99, 256, 100, 101, 256]


@pytest.mark.parametrize("compression", ["lz4", "zstd", "none"])
def test_bit_flips_under_a_forged_hash_are_refused_or_harmless(compression):
    randomness = random.Random(5)
    documents = [[*randomness.choices(range(256), k=randomness.randrange(400)), 256] for _ in range(20)]
    data, record = chunk_of(documents, compression=compression)
    whole = read_chunk(data, record, HEADER, "here")
    harmless = 0
    for _ in range(3500):
        damaged = bytearray(data)
        bit = randomness.randrange(8 * len(data))
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            found = read_chunk(bytes(damaged), believed(record, damaged), HEADER, "here")
        except IntegrityError:
            continue
        harmless += 1
        assert np.array_equal(found.tokens, whole.tokens)
        assert np.array_equal(found.document_offsets, whole.document_offsets)
    assert harmless < 3500


def test_truncation_at_every_length_is_refused():
    for length in range(len(SMALL)):
        with pytest.raises(IntegrityError, match=f"file has {length} bytes"):
            read_chunk(SMALL[:length], SMALL_RECORD, HEADER, "here")
        with pytest.raises(IntegrityError):
            read_chunk(SMALL[:length], believed(SMALL_RECORD, SMALL[:length]), replace(HEADER, number=1), "here")
    with pytest.raises(IntegrityError):
        read_chunk(SMALL + b"\0", SMALL_RECORD, HEADER, "here")


@pytest.mark.parametrize("name", ["cache_metadata.json", "plan.json"])
def test_every_single_bit_flip_of_an_index_is_refused(cache, name):
    cache.build(1)
    path = cache.directory / name
    data = bytearray(path.read_bytes())
    kind = "llm-training token store" if name == "cache_metadata.json" else "llm-training plan"
    assert parse_sealed(bytes(data), path, kind, 1)
    for bit in range(8 * len(data)):
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(IntegrityError):
            parse_sealed(bytes(data), path, kind, 1)
        data[bit // 8] ^= 1 << bit % 8


@pytest.mark.parametrize("place", ["store/toy-ffffffff/chunk_000001.arrow", "packed_sequences/32/toy-ffffffff/packed_chunk_000001.arrow"])
def test_flips_in_files_are_found_at_first_read_and_name_the_file(built, place):
    built.view(32)
    path = built.root / place
    whole = path.read_bytes()
    randomness = random.Random(1)
    for _ in range(100):
        damaged = bytearray(whole)
        damaged[randomness.randrange(len(whole))] ^= 1 << randomness.randrange(8)
        path.write_bytes(damaged)
        view = built.view(32)
        dataset = PackedDataset(built.store(), view, pin_all(view))
        with pytest.raises(IntegrityError, match=path.name) as caught:
            dataset.rows(np.arange(len(dataset)))
        assert caught.value.exit_code == 4
        assert "expected" in caught.value.what


def replaced_by_other_chunk(built, path):
    path.write_bytes((built.directory / "chunk_000002.arrow").read_bytes())


def swapped(built, path):
    other = built.directory / "chunk_000002.arrow"
    first, second = path.read_bytes(), other.read_bytes()
    path.write_bytes(second)
    other.write_bytes(first)


def emptied(built, path):
    path.write_bytes(b"")


def older_version(built, path):
    cache = ToyCache(built.root / "older")
    cache.build(4, source=partial(open_toy, seed=1))
    path.write_bytes((cache.directory / path.name).read_bytes())


def deleted(built, path):
    path.unlink()


def linked_away(built, path):
    target = built.root / "elsewhere"
    target.write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(target)


@pytest.mark.parametrize("damage", [replaced_by_other_chunk, swapped, emptied, older_version, deleted, linked_away])
def test_a_chunk_that_is_another_is_refused_listed_and_repaired(built, damage):
    whole = {path.name: path.read_bytes() for path in built.directory.glob("*.arrow")}
    damage(built, built.directory / "chunk_000001.arrow")
    with pytest.raises((IntegrityError, StorageError), match=r"chunk_000001\.arrow"):
        built.store().read("train", 1)
    assert 1 in {problem.number for problem in built.store().problems(hashes=True)}
    built.build(mode="inverse")
    assert built.store().problems(hashes=True) == []
    assert {path.name: path.read_bytes() for path in built.directory.glob("*.arrow")} == whole
    assert not (built.directory / "chunk_000001.arrow").is_symlink()


@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize("damage", ["deleted", "flipped"])
def test_any_chunk_is_found_by_number_and_rebuilt_with_the_rest_untouched(built, split, damage):
    files = sorted((built.directory / "validation" if split == "validation" else built.directory).glob("chunk_*.arrow"))
    assert len(files) == 4
    everything = built.files()
    randomness = random.Random(f"{split} {damage}")
    for number, path in enumerate(files):
        before = {other: other.stat().st_ino for other in built.directory.rglob("*.arrow") if other != path}
        if damage == "deleted":
            path.unlink()
        else:
            data = bytearray(path.read_bytes())
            data[randomness.randrange(len(data))] ^= 1 << randomness.randrange(8)
            path.write_bytes(data)
        assert [(problem.split, problem.number) for problem in built.store().problems(hashes=True)] == [(split, number)]
        result = built.build(mode="inverse")
        assert result.built == (number,)
        assert [(problem.split, problem.number) for problem in result.damaged] == [(split, number)]
        assert built.files() == everything
        rewritten = {other for other, inode in before.items() if other.stat().st_ino != inode}
        assert rewritten <= {place / path.name for place in (built.directory, built.directory / "validation")}


def test_a_chunk_cut_while_it_is_read_is_refused(built, monkeypatch):
    """Nothing is mapped, so there is no SIGBUS: the read comes up short."""
    path = built.directory / "chunk_000001.arrow"
    read, calls = FileSystem.readinto, []

    def cut_then_read(self, descriptor, buffer):
        calls.append(descriptor)
        os.truncate(path, 100)
        return read(self, descriptor, buffer)

    monkeypatch.setattr(FileSystem, "readinto", cut_then_read)
    with pytest.raises(IntegrityError, match=r"file has 100 bytes, its metadata says .*chunk_000001"):
        built.store().read("train", 1)
    assert calls


def test_a_chunk_of_another_number_is_refused_even_where_the_metadata_was_forged(built):
    store = built.store()
    store.records["train"][1] = replace(store.records["train"][2], number=1)
    store.path("train", 1).write_bytes(store.path("train", 2).read_bytes())
    with pytest.raises(IntegrityError, match="schema differs"):
        store.read("train", 1)


def test_opening_finds_missing_and_cut_files_without_reading_them(built):
    view = built.view(32)
    pin = pin_all(view)
    for path in (built.directory / "chunk_000003.arrow", view.path(2)):
        whole = path.read_bytes()
        path.write_bytes(whole[:-1])
        with pytest.raises(IntegrityError, match=f"{path.name}.*llm-build-cache --mode inverse|its metadata says"):
            PackedDataset(built.store(), view, pin)
        path.unlink()
        with pytest.raises(IntegrityError, match="cannot be opened"):
            PackedDataset(built.store(), view, pin)
        path.write_bytes(whole)
    PackedDataset(built.store(), view, pin)


# Bombs (C-3)


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
@pytest.mark.parametrize("claim", [2**31, 2**62, 2**63 - 1])
def test_a_header_that_claims_too_much_is_refused_before_anything_is_decoded(monkeypatch, compression, claim):
    data, record = chunk_of([[*([97] * 5000), 256]], compression=compression)
    stated = struct.pack("<q", 5001 * 2)
    assert data.count(stated) == 1
    forged = data.replace(stated, struct.pack("<q", claim))
    monkeypatch.setattr(pa.ipc, "open_stream", lambda *_, **__: pytest.fail("decoding began"))
    with pytest.raises(IntegrityError, match=r"file claims \d+ decoded bytes"):
        read_chunk(forged, believed(record, forged), HEADER, "here")


def test_a_bomb_is_refused_by_the_size_in_the_metadata(monkeypatch):
    bomb, record = chunk_of([[*([97] * 3_000_000), 256]], compression="zstd")
    assert len(bomb) < 100_000
    assert declared_bytes(bomb) > 6_000_000
    monkeypatch.setattr(pa.ipc, "open_stream", lambda *_, **__: pytest.fail("decoding began"))
    with pytest.raises(IntegrityError, match=r"decoded bytes, its metadata says 1000"):
        read_chunk(bomb, replace(record, decoded_bytes=1000, num_tokens=10), HEADER, "here")
    with pytest.raises(IntegrityError, match="tokens cannot be in"):
        read_chunk(bomb, replace(record, num_tokens=2**40), HEADER, "here")


# Lies about content (C-4)


def test_an_id_outside_the_vocabulary_is_refused_at_first_read():
    data, record = chunk_of([[97, 300, 256]])
    with pytest.raises(IntegrityError, match="token id 300 is outside the vocabulary of 257"):
        read_chunk(data, record, HEADER, "here")


def test_another_token_type_vocabulary_or_tokenizer_is_refused():
    data, record = chunk_of([[97, 98, 256]], header=replace(HEADER, vocab_size=70_000))
    for lie in (HEADER, replace(HEADER, vocab_size=70_001), replace(HEADER, vocab_size=70_000, tokenizer="u" * 64)):
        with pytest.raises(IntegrityError, match="schema differs"):
            read_chunk(data, record, lie, "here")


@pytest.mark.parametrize("field", ["num_documents", "num_rows", "num_tokens", "decoded_bytes", "num_bytes"])
def test_a_wrong_count_in_the_metadata_is_refused(field):
    for difference in (-1, 1):
        with pytest.raises(IntegrityError):
            read_chunk(SMALL, replace(SMALL_RECORD, **{field: getattr(SMALL_RECORD, field) + difference}), HEADER, "here")


def test_big_endian_tokens_are_refused():
    data, record = chunk_of([[97, 98, 256]], compression="none")
    swapped = data.replace(struct.pack("<3H", 97, 98, 256), struct.pack(">3H", 97, 98, 256))
    assert swapped != data
    with pytest.raises(IntegrityError, match="outside the vocabulary"):
        read_chunk(swapped, believed(record, swapped), HEADER, "here")


def test_a_view_of_another_length_is_not_taken_for_this_one(built):
    right, wrong = built.view(32), built.view(64)
    for path in wrong.directory.iterdir():
        (right.directory / path.name).write_bytes(path.read_bytes())
    view = built.view(32)
    assert view.settings.sequence_length == 32
    dataset = PackedDataset(built.store(), view, pin_all(view))
    assert dataset.rows(np.arange(2)).input_ids.shape == (2, 32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content["train"].append(content["train"][0]), "a chunk number occurs twice"),
        (lambda content: content["train"][0].pop("sha256"), "missing or of the wrong type"),
        (lambda content: content["train"][0].update(num_tokens="5"), "num_tokens is '5'"),
        (lambda content: content["train"][0].update(number=-1), "number is -1"),
        (lambda content: content.update(version=2), "format version 2, this program reads 1"),
        (lambda content: content.update(kind="another"), "the file is a 'another'"),
        (lambda content: content.update(train=5), "missing or of the wrong type"),
        (lambda content: content["train"][0].update(path="../../etc/passwd"), "missing or of the wrong type"),
        (lambda content: content["settings"].update(fingerprint="0"), "plan and metadata belong to different datasets"),
    ],
)
def test_well_sealed_nonsense_in_the_metadata_is_refused(built, change, message):
    path = built.directory / "cache_metadata.json"
    content = parse_sealed(path.read_bytes(), path, "llm-training token store", 1)
    change(content)
    write_sealed(path, content)
    with pytest.raises(IntegrityError, match=message):
        ChunkStore.open(built.directory)


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"null", b'{"seal": NaN}', b"[" * 100_000, b"\xff\xfe", b'{"seal": 1e999}', b"9" * 5000]
)
def test_other_rubbish_in_the_metadata_is_refused(built, data):
    (built.directory / "cache_metadata.json").write_bytes(data)
    with pytest.raises(LlmTrainingError) as caught:
        ChunkStore.open(built.directory)
    assert caught.value.exit_code == 4


def test_a_store_of_another_compression_holds_the_same_content(tmp_path):
    records = []
    for compression in ("lz4", "zstd", "none"):
        cache = ToyCache(tmp_path / compression)
        cache.build(2, settings=toy_settings(compression=compression))
        records.append([record.content for record in cache.store().records["train"].values()])
    assert records[0] == records[1] == records[2]
