"""Encoding, decoding and the files of a tokenizer."""

from __future__ import annotations

import json
import random
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_training.errors import DataError, IntegrityError
from llm_training.tokenizer import Tokenizer, load_tokenizer
from llm_training.tokenizer.backends import ReferenceBackend, choose_backend
from llm_training.tokenizer.long_words import cut_long_words
from llm_training.tokenizer.probe import probe_texts

ANY_TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=200)
TRICKY_TEXT = st.lists(st.sampled_from(probe_texts()), max_size=6).map("".join)


@pytest.fixture(scope="module")
def byte_tokenizer() -> Tokenizer:
    return load_tokenizer("bytes")


@given(text=ANY_TEXT | TRICKY_TEXT)
@settings(max_examples=1500, deadline=None)
def test_decode_inverts_encode(trained: Tokenizer, text: str) -> None:
    assert trained.decode(trained.encode(text)) == text


@given(text=ANY_TEXT | TRICKY_TEXT)
@settings(max_examples=500, deadline=None)
def test_byte_tokenizer_gives_bytes(byte_tokenizer: Tokenizer, text: str) -> None:
    assert byte_tokenizer.encode(text) == list(text.encode())
    assert byte_tokenizer.decode(byte_tokenizer.encode(text)) == text


@given(texts=st.lists(ANY_TEXT | TRICKY_TEXT, max_size=8))
@settings(max_examples=300, deadline=None)
def test_bulk_encoding_equals_the_reference(trained: Tokenizer, texts: list[str]) -> None:
    reference = ReferenceBackend(trained.definition)
    ids, offsets = trained.encode_documents(texts)
    expected_ids, expected_offsets = reference.encode_flat(texts)
    assert ids.dtype == np.uint32 and offsets.dtype == np.int64 and len(offsets) == len(texts) + 1
    assert np.array_equal(ids, expected_ids) and np.array_equal(offsets, expected_offsets)


@pytest.mark.parametrize("spec", ["trained", "bytes"])
@given(before=ANY_TEXT, after=ANY_TEXT)
@settings(max_examples=200, deadline=None)
def test_special_text_in_a_document_is_plain_text(trained: Tokenizer, spec: str, before: str, after: str) -> None:
    tokenizer = trained if spec == "trained" else load_tokenizer("bytes")
    text = f"{before}<|endoftext|>{after}"
    assert tokenizer.separator_id not in tokenizer.encode(text)
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.slow
def test_every_code_point_is_encoded_as_the_reference_does(trained: Tokenizer) -> None:
    assigned_planes = [*range(0xD800), *range(0xE000, 0x20000, 3), *range(0x1F000, 0x1FB00)]
    texts = [f"a{chr(point)}b 1{chr(point)} {chr(point)}" for point in assigned_planes]
    assert trained.backend == "fastokens"
    fast, reference = choose_backend(trained.definition).bulk, ReferenceBackend(trained.definition)
    assert np.array_equal(fast.encode_flat(texts)[0], reference.encode_flat(texts)[0])


@pytest.mark.slow
@pytest.mark.parametrize("spec", ["trained", "bytes", "gpt2"])
@pytest.mark.data
def test_auto_tokenizer_gives_equal_ids(trained: Tokenizer, spec: str, source_texts: list[str], tmp_path, test_data) -> None:
    from transformers import AutoTokenizer

    tokenizer = trained if spec == "trained" else load_tokenizer(test_data / "gpt2" / "tokenizer.json" if spec == "gpt2" else spec)
    tokenizer.save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    generator = random.Random(5)
    lines = [line for text in source_texts for line in text.splitlines()]
    texts = [*probe_texts()[:500], *generator.sample(lines, 500)]
    assert len(texts) == 1000
    plain = [text.replace("<|endoftext|>", "end") for text in texts]
    assert theirs(plain)["input_ids"] == [tokenizer.encode(text) for text in plain]
    assert theirs.eos_token_id == theirs.pad_token_id == tokenizer.separator_id
    assert theirs.decode(tokenizer.encode("a , b 's  c")) == "a , b 's  c"


def test_saved_tokenizer_loads_with_the_same_fingerprint(trained: Tokenizer, tmp_path) -> None:
    trained.save(tmp_path)
    for spec in (tmp_path, tmp_path / "tokenizer.json", str(tmp_path)):
        loaded = load_tokenizer(spec)
        assert loaded.fingerprint == trained.fingerprint
        assert loaded.definition.text == trained.definition.text
    assert json.loads((tmp_path / "tokenizer_config.json").read_bytes())["tokenizer_class"] == "PreTrainedTokenizerFast"


@pytest.mark.data
def test_gpt2_form_of_a_tokenizer_round_trips(test_data, tmp_path) -> None:
    whole = load_tokenizer(test_data / "gpt2" / "tokenizer.json")
    for name, content in whole.vocab_files().items():
        (tmp_path / name).write_bytes(content)
    assert load_tokenizer(tmp_path).fingerprint == whole.fingerprint


def test_ids_outside_the_vocabulary_are_refused(trained: Tokenizer) -> None:
    for bad in (-1, trained.vocab_size):
        with pytest.raises(IntegrityError, match=f"token id {bad} is outside the vocabulary of 600"):
            trained.decode([0, bad])


def test_lone_surrogates_are_refused_by_name(trained: Tokenizer, byte_tokenizer: Tokenizer) -> None:
    for tokenizer in (trained, byte_tokenizer):
        with pytest.raises(DataError, match=r"lone surrogate \(U\+D800\)"):
            tokenizer.encode("a\ud800")


def test_long_words_are_cut_at_aligned_windows_only() -> None:
    texts = ["short text", "a b " * 50 + "x" * 95 + " end", "y" * 60, ""]
    pieces, first = cut_long_words(texts, 20)
    assert first is not None and first.tolist()[0] == 0 and len(first) == 5
    assert ["".join(pieces[first[i] : first[i + 1]]) for i in range(4)] == texts
    assert pieces[0] == "short text" and pieces[-1] == ""
    assert cut_long_words(["a b " * 50], 20)[1] is None


@pytest.mark.parametrize("pattern", ["a", "ab", " ", "\n", "'", "é", "0", "\u0301", "random"])
def test_time_grows_with_the_text_not_faster(trained: Tokenizer, pattern: str) -> None:
    generator = random.Random(1)
    sizes = (250_000, 500_000)
    texts = ["".join(generator.choices("abcdefgh", k=size)) if pattern == "random" else (pattern * size)[:size] for size in sizes]
    times = []
    for text in texts:
        rounds = []
        for _ in range(4):
            start = time.process_time()
            trained.encode_documents([text])
            rounds.append(time.process_time() - start)
        times.append(min(rounds))
    assert times[1] <= 2.5 * times[0] + 0.01


@pytest.mark.slow
def test_one_word_of_fifty_megabytes_is_bounded(trained: Tokenizer) -> None:
    word = "".join(random.Random(2).choices("abcdefghij", k=1000)) * 50_000
    start = time.perf_counter()
    ids, offsets = trained.encode_documents([word])
    assert time.perf_counter() - start < 30
    assert offsets.tolist() == [0, len(ids)]
