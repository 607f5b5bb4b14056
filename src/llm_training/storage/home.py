"""Paths below a home folder, also where there is none: a user without an entry in the system's list, as in many containers."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def expanded(path: str | os.PathLike[str]) -> Path:
    """The path with ``~`` or ``~name`` at its beginning as that home folder; as it is written where nobody is known by the name."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - Path.expanduser raises RuntimeError


def in_home(*parts: str) -> Path:
    """A place in the home folder; without one, in the folder for temporary files."""
    home = expanded("~")
    return (home if home.is_absolute() else Path(tempfile.gettempdir())).joinpath(*parts)
