"""Text to token ids and back: training, loading, bulk encoding."""

from llm_training.tokenizer.report import TokenizerReport, measure_tokenizer
from llm_training.tokenizer.tokenizer import Tokenizer, load_tokenizer
from llm_training.tokenizer.train import DEFAULT_PATTERN, require_trainable, train_tokenizer

__all__ = [
    "DEFAULT_PATTERN", "Tokenizer", "TokenizerReport", "load_tokenizer", "measure_tokenizer", "require_trainable", "train_tokenizer",
]  # fmt: skip
