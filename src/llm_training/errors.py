"""The errors a user can meet, drawn as a tree, and the exit code of each.

    LlmTrainingError              1   internal: anything that is not one of the below is a bug
    ├── ConfigError               2   usage or configuration
    ├── DataError                 3   bad input data
    ├── IntegrityError            4   damaged, mismatched or untrusted artefact
    ├── StorageError              5   full disk, read-only, no permission, I/O error
    ├── NumericError              6   NaN, infinity or divergence past the limit
    ├── PeerError                 7   a rank or a rendezvous failed
    ├── MemoryLimitError          8   out of memory, or a plan that cannot fit
    ├── LockedError               9   a live process holds the artefact
    ├── StoppedEarly             75   stopped before the end, resumable (signal, hard limit)
    └── Interrupted             130   forced by a second interrupt

Each message is one line: what happened and the value met, where, and what to do about it. The line on stderr is
``error[E05]: cannot write checkpoint (disk full: 12 MB free, 90 MB needed); at runs/a/checkpoints; free space and run again``.
"""

from __future__ import annotations

from collections.abc import Sequence


class LlmTrainingError(Exception):
    """Base of every expected error.

    Args:
        what: the fact, with the value met and the bound.
        where: file, line, field or offset the fact is about; empty when the command line itself is the place.
        remedy: what the reader can do next.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        self.what = what
        self.where = where
        self.remedy = remedy
        super().__init__(what)

    @property
    def code(self) -> str:
        """The stable identifier shown in brackets, from the exit code: ``E02`` for exit code 2."""
        return f"E{self.exit_code:02d}"

    def __str__(self) -> str:
        parts = [self.what]
        if self.where:
            parts.append(f"at {self.where}")
        if self.remedy:
            parts.append(self.remedy)
        return "; ".join(part.replace("\n", " ") for part in parts)

    def lines(self) -> Sequence[str]:
        """The line (for most errors one) that the doors print on stderr."""
        return [f"error[{self.code}]: {self}"]


class ConfigError(LlmTrainingError):
    """Usage or configuration. Carries every problem of one pass, so that the user mends all at once."""

    exit_code = 2

    def __init__(self, what: str, *, where: str = "", remedy: str = "", problems: Sequence[str] = ()) -> None:
        super().__init__(what, where=where, remedy=remedy)
        self.problems = tuple(problems)

    def lines(self) -> Sequence[str]:
        """One line for each problem."""
        if not self.problems:
            return super().lines()
        return [f"error[{self.code}]: {problem}" for problem in self.problems]

    def __str__(self) -> str:
        return "; ".join(self.problems) if self.problems else super().__str__()


class DataError(LlmTrainingError):
    """Input data that cannot be used: unreadable, malformed, empty."""

    exit_code = 3


class IntegrityError(LlmTrainingError):
    """An artefact whose content does not match its manifest, its tokenizer or its format, or is of a type never trusted."""

    exit_code = 4


class StorageError(LlmTrainingError):
    """The disk refused: ENOSPC, EROFS, EACCES, EIO, quota."""

    exit_code = 5


class NumericError(LlmTrainingError):
    """Non-finite loss or gradients beyond the limit of consecutive skipped steps."""

    exit_code = 6


class PeerError(LlmTrainingError):
    """Another rank, the rendezvous or the process group failed."""

    exit_code = 7


class MemoryLimitError(LlmTrainingError):
    """Out of memory, or a plan that cannot fit into it."""

    exit_code = 8


class LockedError(LlmTrainingError):
    """A live process holds the lock of the run, the cache or the tokenizer."""

    exit_code = 9


class StoppedEarly(LlmTrainingError):  # noqa: N818 - an outcome with its own exit code, not a failure
    """Stopped before the planned end with a checkpoint on disk; the same command resumes."""

    exit_code = 75


class Interrupted(LlmTrainingError):  # noqa: N818 - what the user did, not a failure
    """A second interrupt: stop now, keep the last committed checkpoint."""

    exit_code = 130
