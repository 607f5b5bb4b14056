"""Text in, documents out: sources, splits, the append-only plan and the reading of its slices."""

from llm_training.corpus.corpus import Corpus, Source, open_corpus
from llm_training.corpus.document import (
    REPLACE_BAD_BYTES,
    SKIP_BAD,
    TEST,
    TEXT_FIELD,
    TRAIN,
    VALIDATION,
    CorpusSettings,
    Document,
    ReadReport,
)
from llm_training.corpus.plan import Plan, Slice, Span
from llm_training.corpus.planning import REPEATED, make_plan
from llm_training.corpus.reading import SliceReader, located
from llm_training.corpus.sources.prepared import prepared_tokenizer

__all__ = [
    "REPEATED", "REPLACE_BAD_BYTES", "SKIP_BAD", "TEST", "TEXT_FIELD", "TRAIN", "VALIDATION", "Corpus", "CorpusSettings", "Document",
    "Plan", "ReadReport", "Slice", "SliceReader", "Source", "Span", "located", "make_plan", "open_corpus", "prepared_tokenizer",
]  # fmt: skip
