"""Bad values: each gives exit 2 and one line with field, value, bound and origin (RELIABILITY R-7)."""

from __future__ import annotations

import json

import pytest

from llm_training.config.fields import all_fields
from llm_training.config.load import load_config
from llm_training.errors import ConfigError

# field, value as YAML text, what the line must say besides field and origin
BAD_VALUES = [
    ("training.learning_rate", "1e20", ">= 0 and <= 10"),
    ("training.learning_rate", "-1", ">= 0 and <= 10"),
    ("training.learning_rate", ".nan", "must be a number"),
    ("training.learning_rate", "nan", "must be a number"),
    ("training.learning_rate", "inf", "must be a number"),
    ("training.learning_rate", "1e999", "finite number"),
    ("training.learning_rate", "1e-4x", "must be a number"),
    ("training.learning_rate", "yes", "must be a number"),
    ("training.learning_rate", "[1e-4]", "is a list but must be a number"),
    ("training.learning_rate", "{peak: 1e-4}", "is a mapping but must be a number"),
    ("training.learning_rate", "0x1g", "must be a number"),
    ("training.learning_rate", "１", "must be a number"),
    ("training.min_learning_rate", "null", "is null but must be a number"),
    ("training.beta1", "1", ">= 0 and < 1"),
    ("training.beta2", "1.5", ">= 0 and < 1"),
    ("training.beta2", "-0.1", ">= 0 and < 1"),
    ("training.eps", "0", "> 0"),
    ("training.weight_decay", "-0.1", ">= 0"),
    ("training.max_grad_norm", "0", "> 0"),
    ("training.gradient_accumulation_steps", "0", "> 0"),
    ("training.batch_size", "0", "> 0"),
    ("training.batch_size", "2147483648", "<= 1048576"),
    ("training.batch_size", "2.5", "whole number > 0"),
    ("training.batch_size", "-3", "> 0"),
    ("training.batch_size", "017", "could be octal; write 17 or 0o17"),
    ("training.batch_size", "0o8", "whole number"),
    ("training.batch_size", "true", "whole number"),
    ("training.batch_size", "many", "whole number"),
    ("training.batch_size", "1" + "0" * 5000, "whole number"),
    ("training.batch_size", "1e30", "whole number"),
    ("training.batch_size", "'8 sequences'", "whole number"),
    ("training.max_steps", "-1", ">= 0"),
    ("training.max_tokens", "0", "> 0"),
    ("training.num_epochs", "0", "> 0"),
    ("training.max_training_hours", "0", "> 0"),
    ("training.max_training_hours", "1e9", "<= 100000"),
    ("training.time_budget_minutes", "-5", "> 0"),
    ("training.warmup_ratio", "1.5", "<= 1"),
    ("training.epoch_dataset_fraction", "0", "> 0 and <= 1"),
    ("training.seed", "-1", ">= 0"),
    ("training.seed", "9223372036854775808", "< 9223372036854775808"),
    ("training.optimizer", "sgd", "one of muon, adamw"),
    ("training.lr_schedule", "cosin", "one of wsd, cosine, linear, constant"),
    ("training.precision", "fp8", "one of auto, fp32, bf16, fp16"),
    ("training.compile", "maybe", "one of auto, true, false"),
    ("training.resume", "''", "must not be empty"),
    ("training.logging_steps", "0", "> 0"),
    ("training.save_total_limit", "0", "> 0"),
    ("model.family", "bert", "one of qwen3, llama, gpt2"),
    ("model.size", "huge", "must be auto or a number of parameters such as 500K, 10M or 1.5B"),
    ("model.hidden_size", "0", "> 0"),
    ("model.hidden_size", "1000000", "<= 65536"),
    ("model.num_layers", "-2", "> 0"),
    ("model.dropout", "1", "< 1"),
    ("model.pre_norm", "no", "must be true"),
    ("model.tie_embeddings", "perhaps", "true or false"),
    ("model.gradient_checkpointing", "2", "true or false"),
    ("cache.sequence_length", "1", ">= 2"),
    ("cache.sequence_length", "1000000000", "<= 1048576"),
    ("cache.packing_strategy", "tight", "one of best_fit, first_fit, greedy, none"),
    ("cache.workers", "-1", ">= 0"),
    ("tokenizer.vocab_size", "256", ">= 257"),
    ("data.sources", "[]", "at least 1"),
    ("data.sources", "[[a]]", "list of texts"),
    ("data.validation_fraction", "0.9", "<= 0.5"),
    ("evaluation.top_p", "0", "> 0"),
    ("monitoring.log_level", "LOUD", "one of DEBUG, INFO, WARNING, ERROR"),
    ("resources.device", "tpu", "one of auto, cpu, cuda, mps"),
]

# a file's text, and for each line expected on stderr what it must contain
BAD_COMBINATIONS = [
    ("model: {hidden_size: 768, num_heads: 7}", ["model.num_attention_heads=7 does not divide model.hidden_size=768"]),
    ("model: {num_heads: 8, num_kv_heads: 3}", ["model.num_key_value_heads=3 does not divide"]),
    ("model: {max_seq_len: 128}\ncache: {sequence_length: 256}", ["cache.sequence_length=256 exceeds model.max_seq_len=128"]),
    ("warmup_steps: 10\nwarmup_ratio: 0.1", ["training.warmup_ratio and training.warmup_steps are both given"]),
    ("warmup_steps: 20\nmax_steps: 10", ["training.warmup_steps=20 exceeds training.max_steps=10"]),
    ("lr: 1e-4\nmin_lr: 1e-3", ["training.min_learning_rate=0.001 exceeds training.learning_rate=0.0001"]),
    ("global_batch_tokens: 1024\ngrad_accum_steps: 2", ["both given"]),
    # an unrelated bad field does not hide the cross check, nor the other way round
    ("batch_size: 0\nwarmup_steps: 20\nmax_steps: 10", ["training.batch_size is 0", "training.warmup_steps=20 exceeds"]),
]


def lines_of(text: str, name: str = "run.yaml") -> list[str]:
    with open(name, "w", encoding="utf-8") as file:
        file.write(text)
    with pytest.raises(ConfigError) as caught:
        load_config([f"./{name}"])
    assert caught.value.exit_code == 2
    return list(caught.value.lines())


@pytest.mark.parametrize(("field", "value", "bound"), BAD_VALUES, ids=lambda part: str(part)[:30])
def test_bad_value_gives_one_line_with_field_value_bound_and_origin(field: str, value: str, bound: str) -> None:
    section, _, key = field.partition(".")
    (line,) = lines_of(f"# comment\n{section}:\n  {key}: {value}\n")
    assert line.startswith(f"error[E02]: {field} ")
    assert bound in line
    assert line.endswith("; at run.yaml:3")
    assert len(line) < 250
    plain = value.strip("'")
    assert plain[:20] in line or plain.startswith(("[", "{")) or plain == "null"


@pytest.mark.parametrize(("text", "expected"), BAD_COMBINATIONS)
def test_fields_that_are_wrong_together(text: str, expected: list[str]) -> None:
    lines = lines_of(text)
    assert len(lines) == len(expected)
    for line, part in zip(lines, expected, strict=True):
        assert part in line
        assert "; at run.yaml:" in line


def test_all_bad_values_are_told_at_once() -> None:
    """Every field of the table in one file: as many lines as fields."""
    by_field = {field: value for field, value, _ in BAD_VALUES}
    text = "".join(f"{field}: {value}\n" for field, value in by_field.items())
    lines = lines_of(text)
    assert len(lines) == len(by_field)
    assert {line.split()[1] for line in lines} == set(by_field)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("lr", "1e-4", 1e-4),
        ("lr", "1E-4", 1e-4),
        ("lr", ".5", 0.5),
        ("lr", "'1e-4'", 1e-4),
        ("max_tokens", "1_000_000", None),
        ("max_steps", "1e3", 1000),
        ("max_steps", "0x10", 16),
        ("max_steps", "0o17", 15),
        ("max_steps", "100.0", 100),
        ("batch_size", "auto", None),
        ("max_grad_norm", "null", None),
        ("max_grad_norm", "~", None),
        ("gradient_checkpointing", "yes", True),
        ("gradient_checkpointing", "On", True),
        ("plots", "no", False),
        ("run_name", "no", "no"),
        ("run_name", "007", "007"),
        ("run_name", "'null'", "null"),
        ("run_name", "2024-01-01", "2024-01-01"),
        ("compile", "no", "false"),
        ("console", "off", "off"),
        ("packing_strategy", "none", "none"),
        ("log_level", "debug", "DEBUG"),
        ("sources", "'stdlib:'", ["stdlib:"]),
        ("sources", "[a, 'b c', no]", ["a", "b c", "no"]),
        ("size", "10m", "10M"),
        ("resume", "false", "never"),
        ("resume", "true", "auto"),
    ],
)
def test_words_of_yaml_mean_what_the_field_means(empty_directory, key: str, value: str, expected: object) -> None:
    if key == "max_tokens":  # ambiguous when flat
        key, expected = "training.max_tokens", 1_000_000
    (empty_directory / "run.yaml").write_text(f"{key}: {value}\n")
    assert _by_flat_name(load_config(["./run.yaml"]).config, key) == expected


def test_json_values_keep_their_types(empty_directory) -> None:
    (empty_directory / "run.json").write_text(json.dumps({"compile": True, "console": False, "resume": False, "plots": False}))
    config = load_config(["./run.json"]).config
    assert (config.training.compile, config.monitoring.console, config.training.resume, config.monitoring.plots) == (
        "true",
        "off",
        "never",
        False,
    )


@pytest.mark.parametrize("value", [True, "8x", 2.5, [8], {"a": 1}])
def test_json_value_of_another_type_is_refused(value: object) -> None:
    (line,) = lines_of(json.dumps({"training": {"batch_size": value}}), "run.json")
    assert "training.batch_size is" in line and "must be a whole number" in line


def test_lone_surrogates_are_refused() -> None:
    with pytest.raises(ConfigError, match="valid Unicode"):
        load_config(cli=[("run_name", "\udcff")])


def _by_flat_name(config: object, key: str) -> object:
    from llm_training.config.names import meaning, resolve

    target = meaning(resolve(key), None).target or ""
    if target not in all_fields():
        target = resolve(key)
    section, _, leaf = target.partition(".")
    return getattr(getattr(config, section), leaf)
