"""Job: held-out figures of a trained model on given texts, or on the validation text of its run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llm_training.cache.encoding import ENCODE_CHARACTERS, token_type
from llm_training.cache.spool import ArraySpool
from llm_training.corpus.corpus import open_corpus
from llm_training.corpus.document import TEXT_FIELD, CorpusSettings
from llm_training.errors import ConfigError, DataError
from llm_training.evaluation.held_out import HeldOutFigures, evaluate_documents
from llm_training.evaluation.windows import Documents
from llm_training.events import EventBus, Progress
from llm_training.jobs.datasets import bytes_of_tokens, held_out_of_run, read_texts
from llm_training.jobs.models import LoadedModel, load_model
from llm_training.storage.durable import require_place, write_json

METRICS = ("loss", "perplexity", "bits_per_byte", "accuracy", "f1")
KEY_OF_METRIC = {"loss": "loss_nats"}
DEFAULT_BATCH = 16


@dataclass(frozen=True)
class EvaluationReport:
    """Figures of one model on one set of texts; ``metrics`` names those that were asked for."""

    model: str
    test_data: tuple[str, ...]
    metrics: tuple[str, ...]
    figures: Mapping[str, Any]

    def facts(self) -> dict[str, str]:
        """Lines for people."""
        shown = {"Model": self.model, "Texts": ", ".join(self.test_data)}
        for metric in self.metrics:
            value = self.figures[KEY_OF_METRIC.get(metric, metric)]
            shown[metric.replace("_", " ").capitalize()] = "not finite" if value is None else f"{value:.4f}"
        error = self.figures["loss_standard_error"]
        if error is not None and "loss" in self.metrics:
            shown["Loss"] += f" ± {error:.4f} nats per token"
        shown["Tokens"] = f"{self.figures['num_tokens']:,} ({self.figures['num_bytes']:,} bytes)"
        for name, figures in self.figures["by_source"].items():
            loss = figures["loss_nats"]
            shown[f"Loss of {name}"] = ("not finite" if loss is None else f"{loss:.4f}") + f" ({figures['num_tokens']:,} tokens)"
        shown["Windows"] = f"{self.figures['window']} tokens, moved on by {self.figures['stride']}"
        return shown


def evaluate(
    model_path: str,
    test_data: Sequence[str] = (),
    *,
    metrics: Sequence[str] = METRICS[:4],
    stride: int | None = None,
    batch_size: int | None = None,
    max_tokens: int | None = None,
    device: str = "auto",
    text_field: str = "text",
    output: str | None = None,
    bus: EventBus | None = None,
) -> EvaluationReport:
    """Score texts, in fp32.

    Args:
        model_path: see jobs/models.py.
        test_data: sources of text; empty takes the validation text of the run the model belongs to.
        stride: tokens between windows; None is half of the context.
        output: JSON file for the report.

    Raises:
        ConfigError: an unknown metric or a stride outside 1 .. context.
        DataError: there is nothing to score.
        IntegrityError: the model cannot be trusted or read.
        StorageError: the report cannot be written; told before anything is scored.
    """
    unknown = [name for name in metrics if name not in METRICS]
    if unknown or not metrics:
        raise ConfigError(f"unknown metric {', '.join(unknown) or '(none)'}", where="--metrics", remedy=f"choose from {', '.join(METRICS)}")
    if output is not None:
        require_place(Path(output))
    loaded = load_model(model_path, device=device)
    window = loaded.model.spec.max_seq_len
    if stride is not None and not 1 <= stride <= window:
        raise ConfigError(f"stride {stride} is outside 1 to {window}", where="--stride", remedy="use at most the model's context")
    documents = _documents(loaded, test_data, text_field)
    figures = _score(
        loaded, documents, window, stride or max(1, window // 2), batch_size or DEFAULT_BATCH, max_tokens, "f1" in metrics, bus
    )
    report = EvaluationReport(str(loaded.path), tuple(test_data) or ("validation text of the run",), tuple(metrics), figures.as_json())
    if output is not None:
        write_json(Path(output), {"model": report.model, "test_data": list(report.test_data), **report.figures})
    return report


def _documents(loaded: LoadedModel, test_data: Sequence[str], text_field: str) -> Documents:
    if not test_data:
        return held_out_of_run(loaded.path, loaded.tokenizer)
    corpus = open_corpus(test_data, CorpusSettings(text_field=text_field, validation_fraction=0.0, skip_bad=False, flags=(TEXT_FIELD,)))
    ids, lengths = ArraySpool(token_type(loaded.tokenizer.vocab_size)), [np.zeros(1, dtype=np.int64)]
    for texts in _batched(read_texts(corpus)):
        flat, offsets = loaded.tokenizer.encode_documents(texts)
        ids.append(flat)
        lengths.append(np.diff(offsets))
    if len(lengths) == 1:
        raise DataError("there is no text to score", where=", ".join(test_data), remedy="give files with text")
    return Documents(ids, np.cumsum(np.concatenate(lengths)))


def _batched(texts: Iterable[str]) -> Iterator[list[str]]:
    """Texts in groups of a few megabytes, so that no more than that is held."""
    group, characters = [], 0
    for text in texts:
        group.append(text)
        characters += len(text)
        if characters >= ENCODE_CHARACTERS:
            yield group
            group, characters = [], 0
    if group:
        yield group


def _score(
    loaded: LoadedModel,
    documents: Documents,
    window: int,
    stride: int,
    batch_size: int,
    max_tokens: int | None,
    with_f1: bool,
    bus: EventBus | None,
) -> HeldOutFigures:
    def report(done: int, total: int) -> None:
        if bus is not None:
            bus.publish(Progress(task="Evaluating", done=done, total=total, unit="windows"))

    token_bytes = bytes_of_tokens(loaded.tokenizer)
    figures = evaluate_documents(
        loaded.model,
        documents,
        separator_id=loaded.tokenizer.separator_id,
        token_bytes=token_bytes,
        window=window,
        stride=stride,
        batch_size=batch_size,
        device=loaded.device,
        precision=loaded.precision,
        max_tokens=max_tokens,
        with_f1=with_f1,
        progress=report,
    )
    assert figures is not None, "nothing asked this pass to stop"
    return figures
