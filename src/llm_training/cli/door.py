"""The way in and out of every command: help at once, words parsed, errors as one line each, exit codes as documented.

Help is text made beforehand (``cli/help``), printed before anything heavy is imported. Parsing is cyclopts' and takes
the plain annotations of the command's function; nothing of it is imported by the command files.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from llm_training.errors import ConfigError, Interrupted, LlmTrainingError, MemoryLimitError
from llm_training.runtime.openmp import wait_briefly

HELP_DIRECTORY: Final = Path(__file__).parent / "help"
MAX_ERROR_LINES: Final = 50

# A command returns its exit code, or nothing for success.
Command = Callable[..., int | None]


def run(word: str, command: Command, arguments: Sequence[str] | None = None, *, takes_fields: bool = False) -> int:
    """Run one command from its words to its exit code.

    Args:
        word: the command's word; names its help text.
        command: the function whose parameters are the flags.
        arguments: the words; None takes those of the process.
        takes_fields: configuration fields (those in `COMMANDS`) are flags too; the first parameter is the list of those given.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    is_debug = _take(words, "--debug")
    wait_briefly()
    try:
        flags = words[: words.index("--")] if "--" in words else words
        if "--help" in flags or "-h" in flags:
            return _print(help_text(word))
        if "--version" in flags:
            return _print(f"llm-training {_version()}\n")
        if takes_fields:
            command, words = _without_fields(word, command, words)
        return parse_words(command, words)() or 0
    except LlmTrainingError as error:
        return _expected(error, is_debug)
    except KeyboardInterrupt:
        return _expected(Interrupted("interrupted"), is_debug)
    except MemoryError:
        return _expected(MemoryLimitError("out of memory", remedy="choose a smaller model, batch or sequence length"), is_debug)
    except BrokenPipeError:
        return _reader_left()
    except Exception:
        return _bug()


def _without_fields(word: str, command: Command, words: Sequence[str]) -> tuple[Command, list[str]]:
    from llm_training.cli.commands import COMMANDS
    from llm_training.cli.fields import split_fields

    split = split_fields(command, words, COMMANDS[word].takes_field)
    return functools.partial(command, split.values), split.rest


def parse_words(command: Command, words: Sequence[str]) -> Callable[[], int | None]:
    """The command bound to its words. Raises :class:`ConfigError` for words it does not know."""
    import cyclopts

    app = cyclopts.App(
        help_flags=[], version_flags=[], default_parameter=cyclopts.Parameter(negative=()), result_action="return_value", config=()
    )
    app.default(command)
    try:
        _, bound, _ = app.parse_args(list(words), exit_on_error=False, print_error=False)
    except cyclopts.MissingArgumentError as error:
        flag = error.argument.name if error.argument else "a flag"
        is_given = any(word.replace("_", "-").partition("=")[0] == flag for word in words)
        raise ConfigError(f"{flag} {'needs a value' if is_given else 'is required'}", remedy="see --help") from None
    except cyclopts.CycloptsError as error:
        raise ConfigError(" ".join(str(error).split()).rstrip("."), remedy="see --help") from None
    return lambda: command(*bound.args, **bound.kwargs)


def help_text(word: str) -> str:
    """The help of a command, as made by ``scripts/make_texts.py``."""
    return (HELP_DIRECTORY / f"{word}.txt").read_text(encoding="utf-8")


def _take(words: list[str], flag: str) -> bool:
    is_given = flag in words
    while flag in words:
        words.remove(flag)
    return is_given


def _version() -> str:
    from importlib.metadata import version

    return version("llm-training")


def _print(text: str) -> int:
    print(text, end="")
    sys.stdout.flush()
    return 0


def _expected(error: LlmTrainingError, is_debug: bool) -> int:
    if is_debug:
        _traceback()
    lines = list(error.lines())
    for line in lines[:MAX_ERROR_LINES]:
        _complain(line)
    if len(lines) > MAX_ERROR_LINES:
        _complain(f"error[{error.code}]: and {len(lines) - MAX_ERROR_LINES} more")
    return error.exit_code


def _bug() -> int:
    _traceback()
    _complain("error[E01]: this is a bug in llm-training; please report it with the lines above")
    return 1


def _traceback() -> None:
    import traceback

    with suppress(OSError, ValueError):
        traceback.print_exc()


def _complain(line: str) -> None:
    """One line on standard error; names of files and fields come from data and may hold anything."""
    from llm_training.monitoring.printable import printable

    with suppress(OSError, ValueError):  # stderr may be closed: the exit code still speaks
        print(printable(line), file=sys.stderr)


def _reader_left() -> int:
    """``llm-logs | head``: the reader has what it wants. Python must not complain at exit about the closed pipe."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
