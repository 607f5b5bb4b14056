"""Figures on real text, with the rooms that read and tokenise it."""

from functools import partial

import pytest

from llm_training.cache.build import build_store
from llm_training.cache.store import ChunkStore, StoreSettings
from llm_training.cache.view import build_view
from llm_training.corpus.corpus import open_corpus
from llm_training.corpus.document import CorpusSettings
from llm_training.corpus.planning import make_plan
from llm_training.corpus.reading import SliceReader
from llm_training.tokenizer import load_tokenizer

pytestmark = [pytest.mark.data, pytest.mark.slow]
MAX_BYTES_PER_TOKEN = {"lz4": 1.75, "zstd": 1.35}


def open_texts(uris, tokenizer):
    corpus = open_corpus(uris, CorpusSettings())
    return SliceReader(corpus, make_plan(corpus)).read_slice, tokenizer


@pytest.mark.parametrize("compression", MAX_BYTES_PER_TOKEN)
def test_gpt2_tokens_of_books_take_few_bytes_and_pad_little(test_data, tmp_path, compression):
    tokenizer = load_tokenizer(test_data / "gpt2" / "tokenizer.json")
    uris = [str(test_data / "gutenberg"), str(test_data / "openstax")]
    slices = [piece.to_json() for piece in make_plan(open_corpus(uris, CorpusSettings())).slices]
    settings = StoreSettings("books", "f" * 64, tokenizer.fingerprint, tokenizer.vocab_size, tokenizer.separator_id, compression)
    result = build_store(tmp_path / "store" / "books", settings, slices, partial(open_texts, uris, tokenizer))
    store = ChunkStore.open(tmp_path / "store" / "books")
    totals = store.totals()["train"]
    bytes_per_token = totals["num_bytes"] / totals["num_tokens"]
    print(f"{compression}: {bytes_per_token:.3f} bytes a token, {result.text_bytes / result.seconds / 1e6:.0f} MB/s")
    assert bytes_per_token <= MAX_BYTES_PER_TOKEN[compression]
    assert build_view(tmp_path, store, 2048).stats.padding_fraction <= 0.02
