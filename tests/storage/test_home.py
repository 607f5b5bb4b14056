"""Home folders that are not there are no reason to stop."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from llm_training.storage.home import expanded, in_home


def test_names_of_nobody_stay_as_they_are_written(monkeypatch) -> None:
    monkeypatch.setenv("HOME", "/home/of/somebody")
    assert expanded("~/texts") == Path("/home/of/somebody/texts") == in_home("texts")
    assert expanded("~nobody-of-this-name/x") == Path("~nobody-of-this-name/x")
    assert expanded("texts/~x") == Path("texts/~x")


def test_a_user_without_a_home_trains_all_the_same(repository: Path) -> None:
    """As in a container that runs under a number of its own: what is imported first asks for the home folder."""
    code = (
        "import pwd\n"
        "def nobody(_): raise KeyError\n"
        "pwd.getpwuid = nobody\n"
        "from llm_training.jobs.session import COMPILER_CACHE\n"
        "print(COMPILER_CACHE)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "HOME"} | {"PYTHONPATH": str(repository / "src")}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert Path(found.stdout.strip()).is_relative_to(tempfile.gettempdir())
