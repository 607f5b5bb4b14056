"""Every backend on real text: 388 languages, GPT-2's published counts, random Unicode."""

from __future__ import annotations

import gzip
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest

from llm_training.tokenizer import Tokenizer, load_tokenizer, train_tokenizer
from llm_training.tokenizer.backends import Backend, ByteBackend, FastBackend, ReferenceBackend
from llm_training.tokenizer.probe import probe_texts

GPT2_COUNTS = {
    "tinyshakespeare, first 90 %": 301_966,
    "tinyshakespeare, rest": 36_059,
    "wiki.valid.tokens": 258_659,
    "wiki.test.tokens": 295_877,
    "wiki.test.raw": 286_217,
    "wiki.train.tokens": 2_448_382,
}
BACKENDS = {"fastokens": FastBackend, "tokenizers": ReferenceBackend}


@pytest.fixture(scope="module")
def gpt2(test_data: Path) -> Tokenizer:
    return Tokenizer.from_files(test_data / "gpt2" / "vocab.json", test_data / "gpt2" / "merges.txt")


def backends_of(tokenizer: Tokenizer) -> list[Backend]:
    """All that can encode with this tokenizer."""
    if tokenizer.backend == "bytes":
        return [ByteBackend(), ReferenceBackend(tokenizer.definition)]
    return [FastBackend(tokenizer.definition), ReferenceBackend(tokenizer.definition)]


def require_round_trip(tokenizer: Tokenizer, texts: list[str]) -> None:
    """Each backend's ids decode to the text, and all backends give the same ids."""
    found = [backend.encode_flat(texts) for backend in backends_of(tokenizer)]
    ids, offsets = found[0]
    assert all(np.array_equal(ids, others) and np.array_equal(offsets, ends) for others, ends in found[1:])
    for number, text in enumerate(texts):
        assert tokenizer.decode(ids[offsets[number] : offsets[number + 1]]) == text


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["qwen2", "gpt2", "bytes", pytest.param("llama3", marks=pytest.mark.nightly), pytest.param("gpt2 pattern", marks=pytest.mark.nightly)],
)
def test_every_language_of_the_declaration_survives_on_every_backend(
    name: str, gpt2: Tokenizer, source_texts: list[str], test_data: Path
) -> None:
    with zipfile.ZipFile(test_data / "udhr" / "udhr2.zip") as archive:
        texts = [archive.read(entry).decode() for entry in archive.namelist() if entry.endswith(".txt")]
    assert len(texts) >= 388
    given = {"gpt2": gpt2, "bytes": load_tokenizer("bytes")}
    require_round_trip(given.get(name) or train_tokenizer(source_texts, 600, pattern=name.removesuffix(" pattern")), texts)


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("name", BACKENDS)
def test_gpt2_counts_are_the_published_ones(name: str, gpt2: Tokenizer, test_data: Path) -> None:
    assert (gpt2.vocab_size, gpt2.separator_id, gpt2.encode("Hello world")) == (50257, 50256, [15496, 995])
    plays = (test_data / "tinyshakespeare" / "input.txt").read_bytes().decode()
    cut = int(len(plays) * 0.9)
    articles = [(test_data / "wikitext-2" / part).read_bytes() for part in ("wiki.valid.tokens", "wiki.test.tokens", "wiki.test.raw")]
    articles.append(gzip.decompress((test_data / "wikitext-2" / "wiki.train.tokens.gz").read_bytes()))
    _, offsets = BACKENDS[name](gpt2.definition).encode_flat([plays[:cut], plays[cut:], *(data.decode() for data in articles)])
    assert np.diff(offsets).tolist() == list(GPT2_COUNTS.values())


@pytest.mark.data
def test_gpt2_counts_through_the_chosen_backend(gpt2: Tokenizer, test_data: Path) -> None:
    plays = (test_data / "tinyshakespeare" / "input.txt").read_bytes().decode()
    cut = int(len(plays) * 0.9)
    _, offsets = gpt2.encode_documents([plays[:cut], plays[cut:]])
    assert np.diff(offsets).tolist() == [301_966, 36_059] and gpt2.backend == "fastokens"


def random_texts(count: int, seed: int) -> list[str]:
    """Strings from all planes, from single scripts, and from marks that tokenizers trip over."""
    generator = random.Random(seed)
    ranges = [(0x20, 0x7E), (0, 0x20), (0x80, 0x2FF), (0x300, 0x36F), (0x370, 0x1FFF), (0x2000, 0x2BFF), (0x3040, 0x9FFF), (0xAC00, 0xD7A3),
              (0xE000, 0xFFFF), (0x10000, 0x10FFFF), (0x1F300, 0x1FAFF)]  # fmt: skip
    pieces = probe_texts()
    texts = []
    for _ in range(count):
        low, high = generator.choice(ranges)
        plain = "".join(chr(generator.randint(low, high)) for _ in range(generator.randint(0, 60)))
        mixed = "".join(chr(generator.randint(*generator.choice(ranges))) for _ in range(generator.randint(0, 30)))
        texts.append(generator.choice([plain, mixed, plain + " " + mixed, generator.choice(pieces) + mixed]))
    return texts


@pytest.mark.parametrize("pattern", ["qwen2", "llama3", "gpt2"])
def test_random_unicode_survives_on_every_backend(pattern: str, source_texts: list[str]) -> None:
    require_round_trip(train_tokenizer(source_texts[:1], 400, pattern=pattern), random_texts(3_400, seed=len(pattern)))


def test_random_unicode_is_its_bytes() -> None:
    require_round_trip(load_tokenizer("bytes"), random_texts(1_000, seed=1))
