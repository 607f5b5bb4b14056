"""Runs nanoGPT's own train.py in this process, then scores the whole validation split. Started in a copy of its tree.

    python nanogpt_driver.py [--keep-large-blocks] -- CONFIG [--key=value ...]

Prints one JSON line: when training ended (Unix seconds; evaluation is not nanoGPT's to pay) and the loss in nats per character
over non-overlapping windows of its context.
"""

from __future__ import annotations

import json
import runpy
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch


def main(words: list[str]) -> int:
    """Train, then evaluate."""
    options, arguments = words[: words.index("--")], words[words.index("--") + 1 :]
    if "--keep-large-blocks" in options:
        from llm_training.runtime.allocator import keep_large_blocks

        keep_large_blocks()
    sys.argv = ["train.py", *arguments]
    sys.path.insert(0, str(Path.cwd()))
    left = runpy.run_path("train.py", run_name="__main__")
    ended = time.time()
    loss, num_scored = whole_split_loss(left)
    print(
        json.dumps(
            {"ended": ended, "loss": loss, "num_scored": num_scored, "parameters": sum(p.numel() for p in left["model"].parameters())}
        )
    )
    return 0


def whole_split_loss(left: dict[str, Any]) -> tuple[float, int]:
    """Mean nats per character over the split, windows side by side; and how many characters were scored."""
    model, length = left["model"], left["block_size"]
    ids = torch.from_numpy(np.fromfile(Path(left["data_dir"]) / "val.bin", dtype=np.uint16).astype(np.int64))
    num_windows = (len(ids) - 1) // length
    inputs = ids[: num_windows * length].view(num_windows, length)
    targets = ids[1 : num_windows * length + 1].view(num_windows, length)
    model.eval()
    total = 0.0
    with torch.no_grad():
        for rows, labels in zip(inputs.split(256), targets.split(256), strict=True):
            total += float(model(rows, labels)[1]) * labels.numel()
    return total / targets.numel(), targets.numel()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
