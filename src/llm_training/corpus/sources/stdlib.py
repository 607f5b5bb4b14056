"""``stdlib:``: the Python standard library's own source files, real text that every reader of this has.

Tests are left out, and so is everything that was installed into it. One file in twenty is held out by the hash of its
path; which of them repeat training files is decided by ``near_duplicates``.
"""

from __future__ import annotations

import hashlib
import os
import sysconfig
from pathlib import Path

from llm_training.corpus.document import TRAIN, VALIDATION
from llm_training.corpus.sources.kinds import SourceFile
from llm_training.errors import DataError

EXCLUDED_DIRECTORIES = frozenset({"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"})
HELD_OUT_MODULUS = 20


def find_stdlib_files(root: Path | None = None) -> list[SourceFile]:
    """The files, sorted by relative path, each with its split. Raises DataError when Python came without its sources."""
    base = root or Path(sysconfig.get_path("stdlib"))
    found: list[Path] = []
    for folder, subfolders, names in os.walk(base):
        subfolders[:] = [name for name in subfolders if name not in EXCLUDED_DIRECTORIES]
        found.extend(Path(folder, name).relative_to(base) for name in names if name.endswith(".py"))
    if not found:
        raise DataError("the Python standard library has no .py files here", where=str(base), remedy="give a folder of texts instead")
    names = sorted(path.as_posix() for path in found)
    return [SourceFile(f"stdlib/{name}", base / name, "python", split_of_path(name)) for name in names]


def split_of_path(relative_path: str) -> str:
    """One path in twenty is held out: sha256 of the path, as a number, divisible by 20."""
    digest = int(hashlib.sha256(relative_path.encode()).hexdigest(), 16)
    return VALIDATION if digest % HELD_OUT_MODULUS == 0 else TRAIN
