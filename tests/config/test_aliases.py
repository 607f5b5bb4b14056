"""Every spelling of the specification's table, flat and in its section; none means two things."""

from __future__ import annotations

import pytest

from llm_training.config.aliases import ELSEWHERE, FIXED, FLAT_OWNERS, RENAMES, SWITCHES, TRANSLATIONS
from llm_training.config.fields import all_fields
from llm_training.config.load import load_config
from llm_training.config.names import UnknownNameError, dotted_spellings, flat_spellings, resolve
from llm_training.errors import ConfigError

# canonical name, other names, a value; as the specification lists them
TABLE = [
    ("model.hidden_size", "d_model n_embd", 64),
    ("model.num_layers", "n_layers num_hidden_layers", 3),
    ("model.num_attention_heads", "num_heads n_heads", 4),
    ("model.num_key_value_heads", "num_kv_heads", 2),
    ("model.intermediate_size", "d_ff", 256),
    ("model.max_seq_len", "max_position_embeddings context_length max_seq_length", 128),
    ("model.dropout", "hidden_dropout", 0.1),
    ("cache.sequence_length", "seq_len max_length", 64),
    ("training.batch_size", "per_device_train_batch_size", 8),
    ("training.gradient_accumulation_steps", "grad_accum_steps", 2),
    ("training.num_epochs", "target_epochs max_epochs num_train_epochs", 3.0),
    ("training.max_steps", "max_iters", 100),
    ("training.max_training_hours", "", 2.0),
    ("training.learning_rate", "", 0.001),
    ("training.min_learning_rate", "min_lr", 0.0001),
    ("training.warmup_steps", "warmup_iters", 10),
    ("training.warmup_ratio", "", 0.1),
    ("training.lr_decay_steps", "lr_decay_iters", 50),
    ("training.max_grad_norm", "grad_clip gradient_clip", 0.5),
    ("training.save_steps", "save_interval checkpoint_interval", 20),
    ("training.eval_steps", "eval_interval eval_every", 30),
    ("training.logging_steps", "log_interval", 5),
    ("training.resume", "resume_from resume_from_checkpoint resume-from", "a/checkpoint"),
    ("training.lr_schedule", "lr_scheduler", "cosine"),
    ("data.text_field", "text_column", "content"),
    ("cache.read_threads", "num_workers dataloader_num_workers", 4),
    ("cache.prefetch_steps", "prefetch_factor dataloader_prefetch_factor", 2),
    ("resources.distributed_backend", "", "gloo"),
]

# name, value, field it sets, the field's value
TRANSLATED = [
    ("packed_cache_validation", True, "cache.validation", True),
    ("use_amp", False, "training.precision", "fp32"),
    ("use_amp", True, "training.precision", "auto"),
    ("use_mixed_precision", False, "training.precision", "fp32"),
    ("mixed_precision", True, "training.precision", "auto"),
    ("mixed_precision", "fp16", "training.precision", "fp16"),
    ("amp_dtype", "float16", "training.precision", "fp16"),
    ("amp_dtype", "bfloat16", "training.precision", "bf16"),
    ("use_torch_compile", True, "training.compile", "true"),
    ("use_torch_compile", False, "training.compile", "false"),
    ("use_flash_attention", True, "model.attention", "auto"),
    ("use_flash_attention", False, "model.attention", "sdpa"),
    ("training.gradient_checkpointing", True, "model.gradient_checkpointing", True),
    ("training.sequence_length", 256, "cache.sequence_length", 256),
    ("data.sequence_length", 256, "cache.sequence_length", 256),
    ("data.max_length", 256, "cache.sequence_length", 256),
    ("data.packing_strategy", "greedy", "cache.packing_strategy", "greedy"),
    ("data.pack_sequences", False, "cache.packing_strategy", "none"),
    ("training.world_size", 4, "resources.world_size", 4),
    ("resources.gpu_count", 4, "resources.world_size", 4),
    ("resources.distributed", False, "resources.world_size", 1),
    ("vocab_size", 5000, "tokenizer.vocab_size", 5000),
    ("model.vocab_size", 5000, "model.vocab_size", 5000),
    ("train_data_path", "a.txt", "data.sources", ["a.txt"]),
    ("val_data_path", "v.txt", "data.validation_sources", ["v.txt"]),
    ("num_samples", 1000, "data.num_samples", 1000),
    ("num_samples", "auto", "data.num_samples", None),
    ("data_dir", "d/", "data.sources", ["d/"]),
    ("input_file", "a.jsonl", "data.sources", ["a.jsonl"]),
    ("checkpoint_dir", "./checkpoints", "training.output_dir", "."),
    ("checkpoint_dir", "out/checkpoints", "training.output_dir", "out"),
    ("checkpoint_dir", "my_checkpoints", "training.output_dir", "my_checkpoints"),
    ("dataset_name", "wikitext", "data.dataset_name", "wikitext"),
    ("model_type", "gpt2", "model.family", "gpt2"),
]

# names without a choice: the true value is accepted, another refused with the reason
NO_CHOICE = [
    ("use_packed_cache", True, False, "packed cache"),
    ("pack_sequences", True, None, ""),
    ("use_epoch_based_training", True, False, "max_steps or max_tokens"),
    ("use_deepspeed", False, True, "torchrun"),
    ("deepspeed_config", None, "ds.json", "torchrun"),
    ("report_to", [], ["tensorboard"], "metrics.jsonl"),
    ("report_to", "none", "wandb", "metrics.jsonl"),
    ("no_wandb", True, False, "metrics.jsonl"),
    ("wandb_project", None, "p", "metrics.jsonl"),
    ("num_gpus", 1, 4, "torchrun"),
    ("shuffle", True, False, "training.seed"),
    ("pin_memory", True, False, "pinned memory"),
    ("resources.distributed", True, None, ""),
    ("model_type", "transformer", None, ""),
]


def value_of(name: str, **loading: object) -> object:
    section, _, key = name.partition(".")
    return getattr(getattr(load_config(**loading).config, section), key)  # type: ignore[arg-type]


def spellings() -> list[tuple[str, str, object]]:
    found = []
    for canonical, others, value in TABLE:
        section, _, key = canonical.partition(".")
        for other in [key, *others.split()]:
            found += [(other, canonical, value), (f"{section}.{other}", canonical, value), (other.replace("_", "-"), canonical, value)]
    return found


@pytest.mark.parametrize(("spelling", "canonical", "value"), spellings())
def test_every_spelling_sets_its_field(spelling: str, canonical: str, value: object) -> None:
    assert value_of(canonical, overrides={spelling: value}) == value
    assert value_of(canonical, cli=[(spelling, str(value))]) == value


@pytest.mark.parametrize(("name", "value", "field", "expected"), TRANSLATED)
def test_translated_spellings(name: str, value: object, field: str, expected: object) -> None:
    assert value_of(field, overrides={name: value}) == expected
    assert value_of(field, environ={"LLM_TRAINING__" + name.replace(".", "__").upper(): str(value)}) == expected


@pytest.mark.parametrize(("name", "true_value", "other", "reason"), NO_CHOICE)
def test_names_without_a_choice(name: str, true_value: object, other: object, reason: str) -> None:
    default = load_config().config
    assert load_config(overrides={name: true_value}).config == default  # type: ignore[dict-item]
    if other is not None:
        with pytest.raises(ConfigError, match=reason):
            load_config(overrides={name: other})  # type: ignore[dict-item]


def test_amp_type_beside_the_switch() -> None:
    assert value_of("training.precision", overrides={"use_amp": True, "amp_dtype": "float16"}) == "fp16"
    assert value_of("training.precision", overrides={"use_amp": False, "amp_dtype": "float16"}) == "fp32"


def test_contradicting_translations_are_refused() -> None:
    with pytest.raises(ConfigError, match="given twice"):
        load_config(overrides={"pack_sequences": False, "packing_strategy": "greedy"})
    with pytest.raises(ConfigError, match="given twice"):
        load_config(overrides={"amp_dtype": "float16", "precision": "bf16"})


def test_no_spelling_means_two_things() -> None:
    """Each alias is one field's, shadows no field, and every table names fields that exist."""
    seen: dict[str, str] = {}
    for target, others in RENAMES.items():
        assert target in all_fields()
        for other in others:
            dotted = f"{target.partition('.')[0]}.{other}"
            assert dotted not in all_fields(), f"{dotted} is a field"
            assert seen.setdefault(other, target) == target, f"{other} is an alias of {seen[other]} and {target}"
            assert other not in {name.partition(".")[2] for name in all_fields()}, f"{other} is a field of another section"
    targets = [*FLAT_OWNERS.values(), *(target for many in ELSEWHERE.values() for target in many)]
    assert all(target in dotted_spellings() for target in targets)
    assert not set(TRANSLATIONS) & set(FIXED)
    assert set(TRANSLATIONS) | set(FIXED) >= SWITCHES
    assert not (set(TRANSLATIONS) | set(FIXED)) & {
        f"{s}.{a}" for t, others in RENAMES.items() for a in others for s in (t.partition(".")[0],)
    }


def test_flat_names_are_one_field_or_refused() -> None:
    for flat, candidates in flat_spellings().items():
        if len(candidates) == 1:
            continue
        with pytest.raises(UnknownNameError, match="write the section too"):
            resolve(flat)
    with pytest.raises(UnknownNameError, match=r"training\.max_tokens or evaluation\.max_tokens"):
        resolve("max_tokens")


@pytest.mark.parametrize(
    ("typo", "nearest"),
    [
        ("hiden_size", "model.hidden_size"),
        ("training.leaning_rate", "training.learning_rate"),
        ("trainig.batch_size", "training.batch_size"),
        ("batchsize", "training.batch_size"),
        ("model.sequence_length", "cache.sequence_length"),
        ("xyzzy", ""),
    ],
)
def test_nearest_known_name(typo: str, nearest: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        resolve(typo)
    assert caught.value.nearest == nearest
