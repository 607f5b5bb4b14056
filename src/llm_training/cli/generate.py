"""``llm-generate``: text from a trained model, printed as it is written."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Sequence

from llm_training.cli import door


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    return door.run("generate", generate, _with_its_value(words, "--prompt"))


def _with_its_value(words: list[str], flag: str) -> list[str]:
    """Join a flag and the word after it: a prompt may begin with a dash, or be one."""
    if flag not in words[:-1]:
        return words
    at = words.index(flag)
    return [*words[:at], f"{flag}={words[at + 1]}", *words[at + 2 :]]


def generate(
    *prompts: str,
    model_path: str,
    prompt: str | None = None,
    max_tokens: int = 200,
    temperature: float = 0.8,
    top_k: int | None = None,
    top_p: float = 0.95,
    stop: list[str] | None = None,
    seed: int | None = None,
    device: str = "auto",
    json: bool = False,
) -> int:
    """Let a model write.

    Example:
        llm-generate --model-path runs/my_run --prompt "def main(" --max-tokens 100

    Args:
        prompts: words of the beginning; the same as --prompt.
        model_path: a checkpoint, a run, or any Hugging Face directory of the three families.
        prompt: beginning of the text; empty starts a new document; - reads standard input.
        max_tokens: tokens written at most.
        temperature: 0 takes the likeliest token every time; 1 samples the model's own distribution.
        top_k: sample among so many likeliest tokens; empty is no limit.
        top_p: sample among the likeliest tokens that together have this probability.
        stop: stop before this text.
        seed: for the same text again; empty draws one.
        device: auto, cpu, cuda or mps.
        json: print prompt and text as JSON when all is written.
    """
    from llm_training.cli.console import print_json
    from llm_training.jobs.generate import generate as job

    used_seed = secrets.randbelow(1 << 31) if seed is None else seed
    words = " ".join(prompts) if prompt is None else prompt
    beginning = sys.stdin.read() if words == "-" else words
    pieces = job(
        model_path,
        beginning,
        max_tokens=max_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        stop=stop or (),
        seed=used_seed,
        device=device,
    )
    if json:
        print_json({"prompt": beginning, "text": "".join(pieces), "seed": used_seed})
        return 0
    _print_as_written(beginning)
    for piece in pieces:
        _print_as_written(piece)
    print()
    if seed is None and temperature > 0 and sys.stderr.isatty():
        print(f"(--seed {used_seed} writes the same again)", file=sys.stderr)
    return 0


def _print_as_written(text: str) -> None:
    """Control characters that a model writes must not reach the terminal as commands; line breaks and tabs are kept."""
    from llm_training.monitoring.printable import printable

    if sys.stdout.isatty():
        text = "\n".join("\t".join(map(printable, line.split("\t"))) for line in text.split("\n"))
    print(text, end="", flush=True)


if __name__ == "__main__":
    sys.exit(main())
