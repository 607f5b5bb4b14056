"""``llm-train``: every spelling of flags, what a source is, and errors on the words."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_training.config.load import load_config
from tests.cli.conftest import Run


def printed(run: Run, tmp_path: Path, *words: str):
    """The configuration that ``--print-config`` says, read back."""
    end = words.index("--") if "--" in words else len(words)
    found = run("train", *words[:end], "--print-config", *words[end:])
    assert found.code == 0, found.err
    path = tmp_path / "printed.yaml"
    path.write_text(found.out, encoding="utf-8")
    return load_config([str(path)]).config


def _words(text: str) -> list[str]:
    return text.split()


@pytest.mark.parametrize(
    "words",
    [
        ("--batch-size", "8"),
        ("--batch_size", "8"),
        ("--batch-size=8",),
        ("--training.batch-size", "8"),
        ("--training.batch_size=8",),
        ("--per_device_train_batch_size", "8"),
    ],
)
def test_spellings_of_a_flag(run: Run, tmp_path: Path, words: tuple[str, ...]) -> None:
    assert printed(run, tmp_path, *words).training.batch_size == 8


@pytest.mark.parametrize(
    ("words", "section", "key", "expected"),
    [
        (("--gradient-checkpointing",), "model", "gradient_checkpointing", True),
        (("--gradient-checkpointing", "--seed", "1"), "model", "gradient_checkpointing", True),
        (("--gradient-checkpointing", "false"), "model", "gradient_checkpointing", False),
        (("--gradient-checkpointing=no",), "model", "gradient_checkpointing", False),
        (("--no-plots",), "monitoring", "plots", False),
        (("--monitoring.plots=off",), "monitoring", "plots", False),
        (("--no-tie-embeddings",), "model", "tie_embeddings", False),
        (("--compile",), "training", "compile", "true"),
        (("--no-compile",), "training", "compile", "false"),
        (("--compile", "auto"), "training", "compile", "auto"),
        (("--compile", "a/b"), "data", "sources", ["a/b"]),
        (("--no-wandb",), "monitoring", "plots", True),
        (("--use-amp",), "training", "precision", "auto"),
        (("--no-use-amp",), "training", "precision", "fp32"),
        (("--mixed-precision", "fp16"), "training", "precision", "fp16"),
        (("--learning-rate", "1e-4"), "training", "learning_rate", 1e-4),
        (("--resume", "never"), "training", "resume", "never"),
        (("--resume-from", "a/b"), "training", "resume", "a/b"),
        (("--resume_from_checkpoint", "a/b"), "training", "resume", "a/b"),
        (("--output-dir", "out"), "training", "output_dir", "out"),
        (("--run-name", "-x"), "training", "run_name", "-x"),
        (("--run-name", "no"), "training", "run_name", "no"),
        (("--checkpoint_dir", "my_checkpoints"), "training", "output_dir", "my_checkpoints"),
        (("--max-grad-norm", "null"), "training", "max_grad_norm", None),
        (("--vocab-size", "5000"), "tokenizer", "vocab_size", 5000),
        (("--data-dir", "d/"), "data", "sources", ["d/"]),
        (("--input-file", "a", "--input-file", "b"), "data", "sources", ["a", "b"]),
        (("a", "b", "--seed", "1", "c"), "data", "sources", ["a", "b", "c"]),
        (("--seed", "1", "a"), "data", "sources", ["a"]),
        (("./plot",), "data", "sources", ["./plot"]),
        (("--", "--odd"), "data", "sources", ["--odd"]),
        (("train", "a"), "data", "sources", ["a"]),
        (("a", "--val-data-path", "v", "--val-data-path", "w"), "data", "validation_sources", ["v", "w"]),
        (("--distributed-backend", "nccl"), "resources", "distributed_backend", "nccl"),
    ],
)
def test_words_and_what_they_set(run: Run, tmp_path: Path, words: tuple[str, ...], section: str, key: str, expected: object) -> None:
    assert getattr(getattr(printed(run, tmp_path, *words), section), key) == expected


def test_command_lines_that_other_trainers_document(run: Run, tmp_path: Path) -> None:
    config = printed(
        run, tmp_path, *_words("--d-model 512 --num-layers 6 --num-heads 8 --batch-size 64 --lr 2e-4 --max-iters 25000 --no-wandb"),
        "--train-data-path", "data/my_data.txt",
    )  # fmt: skip
    assert (config.model.hidden_size, config.model.num_layers, config.model.num_attention_heads) == (512, 6, 8)
    assert (config.training.batch_size, config.training.learning_rate, config.training.max_steps) == (64, 2e-4, 25_000)
    assert config.data.sources == ["data/my_data.txt"]
    config = printed(
        run, tmp_path, *_words("train --max_epochs 20 --max_training_hours 12.0 --batch_size 16 --learning_rate 5e-4 --d_model 1024")
    )
    assert (config.training.num_epochs, config.training.max_training_hours, config.model.hidden_size) == (20, 12.0, 1024)


def test_flags_win_over_files_and_later_files_over_earlier(run: Run, tmp_path: Path) -> None:
    config = printed(run, tmp_path, "--config", "fineweb_415m", "--config", "rtx_3080", "--batch-size", "7")
    assert (config.training.batch_size, config.training.gradient_accumulation_steps, config.model.hidden_size) == (7, 5, 1536)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--batch-siz 3", "unknown flag --batch-siz; at command line; did you mean --batch-size?"),
        ("--dry-rn", "did you mean --dry-run?"),
        ("--hiden-size=3", "did you mean --hidden-size?"),
        ("--xyzzy", "unknown flag --xyzzy; at command line; see --help"),
        ("--seed", "--seed needs a value"),
        ("--seed --plots", "--seed needs a value"),
        ("--seed x", "training.seed is x but must be a whole number"),
        ("--batch-size 0", "training.batch_size is 0 but must be > 0 and <= 1048576; at command line --batch-size"),
        ("--max-tokens 5", "training.max_tokens or evaluation.max_tokens"),
        ("--dir x", "cache.dir; write the section too"),
        ("--training 3", "training is a section"),
        ("--config", "--config needs a value"),
        ("--config smal_model", "did you mean --config small_model?"),
        ("--seed 1 --training.seed 2", "training.seed is given twice, as seed at command line --seed"),
        ("plot", "plot is a command, not a source; run llm-plot, or write ./plot for a folder of that name"),
        ("--num-gpus 4", "torchrun --nproc_per_node=N"),
        ("--val-data-path v.txt my_texts", "my_texts follows --val-data-path v.txt"),
        ("a --data-dir b", "data.sources is given twice"),
        ("--dry-run=perhaps", "Invalid value for --dry-run"),
        ("--wandb-project p", "metrics.jsonl"),
        ("--cache.document-attention maybe", "cache.document_attention is maybe but must be one of auto, true, false"),
        ("texts --compile perhaps", "training.compile is perhaps but must be one of auto, true, false"),
    ],
)
def test_wrong_words_are_one_line(run: Run, words: str, expected: str) -> None:
    found = run("train", *words.split())
    assert found.code == 2 and found.out == ""
    (line,) = found.err.splitlines()
    assert line.startswith("error[E02]: ") and expected in line


def test_all_wrong_words_at_once(run: Run) -> None:
    found = run("train", "--batch-siz", "3", "--dry-rn", "--seed")
    assert found.code == 2 and len(found.err.splitlines()) == 3


def test_environment_reaches_the_command(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_TRAINING__TRAINING__SEED", "5")
    assert "seed: 5  # environment LLM_TRAINING__TRAINING__SEED" in run("train", "--print-config").out
    monkeypatch.setenv("LLM_TRAINING__TRAINING__SEDE", "5")
    found = run("train", "--print-config")
    assert found.code == 2 and "did you mean LLM_TRAINING__TRAINING__SEED?" in found.err


def test_evaluate_as_the_first_word_is_the_other_command(capsys) -> None:
    from llm_training.cli.train import main

    assert main(["evaluate", "--help"]) == 0
    assert capsys.readouterr().out.startswith("Usage: llm-evaluate")


def test_main_from_the_package_is_a_function(capsys) -> None:
    import llm_training

    assert llm_training.main(["--print-config", "--seed", "3"]) == 0
    assert "seed: 3" in capsys.readouterr().out
