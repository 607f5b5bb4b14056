"""The door of ``python -m llm_training.main`` (torchrun's ``-m`` too): the same as ``llm-train``."""

from __future__ import annotations

import sys

from llm_training.cli.train import main

if __name__ == "__main__":
    sys.exit(main())
