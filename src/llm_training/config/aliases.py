"""Every other spelling of a field, and what it means.

Three tables. ``RENAMES``: another name, the same value; each is known flat (``d_model``) and in its field's section
(``model.d_model``), and for those in ``ELSEWHERE`` also in a section where a reader would look for it
(``training.sequence_length``). ``TRANSLATIONS``: another name and another value (``use_amp: false`` is
``precision: fp32``). ``FIXED``: names that are no choice in this program; the one value that is true of it is accepted,
any other is refused with the reason. Nothing is accepted and then ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Final

from llm_training.config.given import Nested, Text, Value, shown

RENAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "model.hidden_size": ("d_model", "n_embd"),
    "model.num_layers": ("n_layers", "n_layer", "num_hidden_layers"),
    "model.num_attention_heads": ("num_heads", "n_heads", "n_head"),
    "model.num_key_value_heads": ("num_kv_heads",),
    "model.intermediate_size": ("d_ff",),
    "model.init_from": ("model_name_or_path",),
    "model.max_seq_len": ("max_position_embeddings", "context_length", "max_seq_length"),
    "model.dropout": ("hidden_dropout",),
    "model.norm_eps": ("rms_norm_eps", "layer_norm_epsilon"),
    "model.tie_embeddings": ("tie_word_embeddings",),
    "model.activation": ("hidden_act",),
    "tokenizer.path": ("tokenizer_path",),
    "data.sources": ("train_data_path", "data_dir", "input_file"),
    "data.validation_sources": ("val_data_path",),
    "data.text_field": ("text_column",),
    "cache.dir": ("cache_dir",),
    "cache.sequence_length": ("seq_len", "max_length", "block_size"),
    "cache.workers": ("preprocessing_num_workers",),
    "cache.validation": ("packed_cache_validation",),
    "cache.read_threads": ("num_workers", "dataloader_num_workers"),
    "cache.prefetch_steps": ("prefetch_factor", "dataloader_prefetch_factor"),
    "cache.document_attention": ("neat_packing", "reset_attention_mask", "intra_document_masking", "attn_uses_sequence_id"),
    "training.resume": ("resume_from", "resume_from_checkpoint"),
    "training.batch_size": ("per_device_train_batch_size", "micro_batch_size"),
    "training.gradient_accumulation_steps": ("grad_accum_steps",),
    "training.num_epochs": ("target_epochs", "max_epochs", "num_train_epochs"),
    "training.max_steps": ("max_iters",),
    "training.learning_rate": ("lr",),
    "training.min_learning_rate": ("min_lr",),
    "training.lr_schedule": ("lr_scheduler", "lr_scheduler_type"),
    "training.warmup_steps": ("warmup_iters",),
    "training.lr_decay_steps": ("lr_decay_iters",),
    "training.beta1": ("adam_beta1",),
    "training.beta2": ("adam_beta2",),
    "training.eps": ("adam_epsilon",),
    "training.max_grad_norm": ("grad_clip", "gradient_clip"),
    "training.save_steps": ("save_interval", "checkpoint_interval"),
    "training.eval_steps": ("eval_interval", "eval_every"),
    "training.logging_steps": ("log_interval",),
    "evaluation.batch_size": ("per_device_eval_batch_size",),
    "resources.world_size": ("gpu_count",),
}

ELSEWHERE: Final[Mapping[str, tuple[str, ...]]] = {
    "training": (
        "model.gradient_checkpointing",
        "cache.sequence_length",
        "resources.world_size",
        "resources.distributed_backend",
        "resources.device",
        "monitoring.log_level",
        "data.sources",
        "data.validation_sources",
        "cache.document_attention",
    ),
    "model": ("cache.document_attention",),
    "data": (
        "cache.sequence_length",
        "cache.packing_strategy",
        "cache.document_attention",
        "cache.workers",
        "cache.validation",
        "cache.read_threads",
        "cache.prefetch_steps",
    ),
}

# A flat name that several sections have belongs to the one a trainer's user means; the others need their section.
FLAT_OWNERS: Final[Mapping[str, str]] = {
    "batch_size": "training.batch_size",
    "vocab_size": "tokenizer.vocab_size",
    "num_samples": "data.num_samples",
}

# Names that say nothing without their section.
SECTION_ONLY: Final = frozenset({"dir", "name", "path", "validation"})


class RefusedError(Exception):
    """A spelling whose value this program cannot honour; the text is the reason and the remedy."""


@dataclass(frozen=True)
class Meaning:
    """What a spelling sets. ``target`` None sets nothing. Of two spellings of one field in one source the higher
    ``weight`` wins, and equal weights with unequal values are an error."""

    target: str | None
    value: Value = None
    weight: int = 1


Translate = Callable[[Value], Meaning]

_YES: Final = frozenset({"true", "yes", "on", "1"})
_NO: Final = frozenset({"false", "no", "off", "0"})


def switch(value: Value) -> bool:
    """A switch in any spelling; raises :class:`RefusedError` for anything else."""
    if isinstance(value, bool):
        return value
    word = str(value).lower() if isinstance(value, (str, int)) else ""
    if word in _YES or word in _NO:
        return word in _YES
    raise RefusedError(f"is {shown(value)} but must be true or false")


def _by_switch(target: str, yes: str | int | bool | None, no: str | int | bool | None, weights: tuple[int, int] = (1, 1)) -> Translate:
    """A switch that stands for one of two values of ``target``; None sets nothing."""

    def translate(value: Value) -> Meaning:
        is_on = switch(value)
        chosen = yes if is_on else no
        return Meaning(None if chosen is None else target, chosen, weights[0] if is_on else weights[1])

    return translate


_DTYPES: Final = {
    "float16": "fp16", "fp16": "fp16", "half": "fp16", "16": "fp16",
    "bfloat16": "bf16", "bf16": "bf16",
    "float32": "fp32", "fp32": "fp32", "32": "fp32",
}  # fmt: skip


def _dtype(value: Value) -> Meaning:
    word = str(value).lower().removeprefix("torch.")
    if word not in _DTYPES:
        raise RefusedError(f"is {shown(value)} but must be one of {', '.join(_DTYPES)}")
    return Meaning("training.precision", _DTYPES[word])


def _mixed_precision(value: Value) -> Meaning:
    """A switch, or a type as accelerate spells it. A plain yes gives way to ``amp_dtype`` beside it; a no does not."""
    if isinstance(value, str) and value.lower() in _DTYPES:
        return _dtype(value)
    return _by_switch("training.precision", "auto", "fp32", (0, 2))(value)


def _resume(value: Value) -> Meaning:
    """``resume`` as a switch: true is auto, false is never."""
    if isinstance(value, bool) or (isinstance(value, Text) and value.lower() in ("true", "false", "yes", "no", "null", "none")):
        is_on = value is True or str(value).lower() in ("true", "yes")
        return Meaning("training.resume", "auto" if is_on else "never")
    return Meaning("training.resume", value)


def _checkpoint_dir(value: Value) -> Meaning:
    """Checkpoints live in ``checkpoints/`` under the run: ``./checkpoints`` is the run in ``.``."""
    if not isinstance(value, str) or not value:
        raise RefusedError(f"is {shown(value)} but must be a directory")
    path = PurePath(value)
    return Meaning("training.output_dir", str(path.parent) if path.name == "checkpoints" else value)


def _size(value: Value) -> Meaning:
    return Meaning("model.size", value.upper() if isinstance(value, str) and value[:1].isdigit() else value)


def _model_type(value: Value) -> Meaning:
    return Meaning(None) if value == "transformer" else Meaning("model.family", value)


TRANSLATIONS: Final[Mapping[str, Translate]] = {
    "training.use_amp": _mixed_precision,
    "training.use_mixed_precision": _mixed_precision,
    "training.mixed_precision": _mixed_precision,
    "training.amp_dtype": _dtype,
    "training.bf16": _by_switch("training.precision", "bf16", None),
    "training.fp16": _by_switch("training.precision", "fp16", None),
    "training.use_torch_compile": _by_switch("training.compile", "true", "false"),
    "training.resume": _resume,
    "training.checkpoint_dir": _checkpoint_dir,
    "training.use_flash_attention": _by_switch("model.attention", "auto", "sdpa"),
    "model.use_flash_attention": _by_switch("model.attention", "auto", "sdpa"),
    "model.size": _size,
    "model.model_type": _model_type,
    "data.pack_sequences": _by_switch("cache.packing_strategy", None, "none"),
    "cache.pack_sequences": _by_switch("cache.packing_strategy", None, "none"),
    "resources.distributed": _by_switch("resources.world_size", None, 1),
}


def _only(accepted: Sequence[object], reason: str) -> Translate:
    """Accepts the values that are true of this program and sets nothing; refuses the rest with ``reason``."""
    words = frozenset(str(value).lower() for value in accepted)

    def translate(value: Value) -> Meaning:
        is_empty_list = isinstance(value, Sequence) and not value
        if (is_empty_list and "none" in words) or (not isinstance(value, Nested) and str(value).lower() in words):
            return Meaning(None)
        raise RefusedError(f"is {shown(value)}, which this program does not do: {reason}")

    return translate


_SINKS: Final = "metrics.jsonl and the JSON run log are always written; other trackers are not in this version"
_YES_ONLY: Final = (True, "yes", "on")
_NO_ONLY: Final = (False, "no", "off", None, "null", "none", "")

_RANKS: Final = "start ranks with torchrun --nproc_per_node=N -m llm_training.main"

FIXED: Final[Mapping[str, Translate]] = {
    "data.use_packed_cache": _only(_YES_ONLY, "training always reads the packed cache; cache.packing_strategy: none pads instead"),
    "data.shuffle": _only(_YES_ONLY, "the order of rows is a shuffle fixed by training.seed"),
    "data.pin_memory": _only(_YES_ONLY, "batches for a CUDA device are always copied from pinned memory, without waiting"),
    "training.use_epoch_based_training": _only(_YES_ONLY, "the first length given ends the run; give max_steps or max_tokens instead"),
    "training.do_train": _only(_YES_ONLY, "llm-evaluate evaluates without training"),
    "training.do_eval": _only(_YES_ONLY, "text is always held out and evaluated; evaluation.max_tokens makes it short"),
    "training.overwrite_output_dir": _only(_NO_ONLY, "a run is never overwritten; choose another output_dir, or remove the old one"),
    "training.use_deepspeed": _only(_NO_ONLY, _RANKS),
    "training.deepspeed_config": _only(_NO_ONLY, _RANKS),
    "resources.num_gpus": _only((1, "auto", None, "null"), _RANKS),
    "monitoring.report_to": _only((*_NO_ONLY, "[]", "jsonl"), _SINKS),
    "training.report_to": _only((*_NO_ONLY, "[]", "jsonl"), _SINKS),
    "monitoring.no_wandb": _only(_YES_ONLY, _SINKS),
    "monitoring.wandb": _only(_NO_ONLY, _SINKS),
    "monitoring.wandb_project": _only(_NO_ONLY, _SINKS),
    "monitoring.wandb_name": _only(_NO_ONLY, _SINKS),
    "monitoring.wandb_entity": _only(_NO_ONLY, _SINKS),
}

# Spellings that mean yes when a command line gives them no value.
SWITCHES: Final = frozenset(
    {
        "training.use_amp",
        "training.bf16",
        "training.fp16",
        "training.do_train",
        "training.do_eval",
        "training.overwrite_output_dir",
        "training.use_mixed_precision",
        "training.mixed_precision",
        "training.use_torch_compile",
        "training.use_flash_attention",
        "model.use_flash_attention",
        "training.use_epoch_based_training",
        "training.use_deepspeed",
        "data.pack_sequences",
        "cache.pack_sequences",
        "data.use_packed_cache",
        "data.shuffle",
        "data.pin_memory",
        "resources.distributed",
        "monitoring.wandb",
        "monitoring.no_wandb",
    }
)


def own_spellings(section: str) -> Mapping[str, Translate]:
    """Other names within a section, with what they do to their value: for sections made in Python."""
    found: dict[str, Translate] = {}
    for target, others in RENAMES.items():
        if target.startswith(f"{section}."):
            found.update({other: _renamed(target) for other in others})
    for table in (FIXED, TRANSLATIONS):
        found.update({name.partition(".")[2]: rule for name, rule in table.items() if name.startswith(f"{section}.")})
    return found


def _renamed(target: str) -> Translate:
    return lambda value: Meaning(target, value)
