"""``llm-evaluate``: loss, perplexity, bits per byte and accuracy of a model on texts."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from llm_training.cli import door


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return door.run("evaluate", evaluate, arguments)


def evaluate(
    *sources: str,
    model_path: str,
    test_data: list[str] | None = None,
    metrics: str = "loss,perplexity,bits_per_byte,accuracy",
    stride: int | None = None,
    batch_size: int | None = None,
    max_tokens: int | None = None,
    device: str = "auto",
    text_field: str = "text",
    output: str | None = None,
    json: bool = False,
) -> int:
    """Measure a model on held-out text.

    Example:
        llm-evaluate --model-path runs/my_run/checkpoints/best_model --test-data my_texts/test.txt

    Args:
        sources: files, folders, globs or URIs of text; the same as --test-data.
        model_path: a checkpoint, a run, or any Hugging Face directory of the three families.
        test_data: a file, folder, glob or URI of text; empty measures on the validation texts of the run.
        metrics: figures to report, separated by commas.
        stride: tokens that the window moves on by; empty is half of the context, for final figures.
        batch_size: windows per forward pass; empty is chosen.
        max_tokens: tokens measured at most; empty measures all.
        device: auto, cpu, cuda or mps.
        text_field: key of the text in JSON documents.
        output: JSON file for the figures.
        json: print the figures as JSON; progress goes to standard error.
    """
    from llm_training.cli.console import print_facts, print_json, watched
    from llm_training.jobs.evaluate import evaluate as job

    with watched(to_stderr=json) as bus:
        result = job(
            model_path,
            [*(test_data or ()), *sources],
            metrics=[name.strip() for name in metrics.split(",") if name.strip()],
            stride=stride,
            batch_size=batch_size,
            max_tokens=max_tokens,
            device=device,
            text_field=text_field,
            output=output,
            bus=bus,
        )
    if json:
        print_json(result)
    else:
        print_facts(result.facts())
    return 0


if __name__ == "__main__":
    sys.exit(main())
