"""Running a compiled model without its compiled code."""

from __future__ import annotations

import contextlib
import sys
from contextlib import AbstractContextManager

import torch


def eagerly() -> AbstractContextManager[object]:
    """Inside the block, compiled modules run as they were written.

    Batches of evaluation and generation differ in shape, and each new shape would be compiled anew, for many seconds. Where
    nothing was compiled the compiler is not even imported.
    """
    if "torch._dynamo" not in sys.modules:
        return contextlib.nullcontext()
    return torch.compiler.set_stance("force_eager")
