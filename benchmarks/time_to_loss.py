"""Time to nanoGPT's loss in its documented CPU setting: characters of Tiny Shakespeare, 2,000 steps, one core.

``python -m benchmarks.time_to_loss --peers DIR`` with a clone of nanoGPT in DIR/nanoGPT. Everything is counted from the start of a
process: imports, data, training, the last save. nanoGPT runs as shipped and patched (bf16 autocast, fused AdamW, large blocks
kept by the allocator; compiling it costs more here than it brings); the faster of the two is the one to beat. L is nanoGPT's own
loss after 2,000 steps over the whole validation split. Both programs take turns on the same core.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.harness import Figure, Result, missing, run_benchmark, summarize
from benchmarks.machine import REPOSITORY
from benchmarks.text import find_data

DESCRIPTION = "seconds from process start to nanoGPT's loss (Tiny Shakespeare by character, its CPU setting), one core, in turn"
NANOGPT_SETTING = [
    "config/train_shakespeare_char.py",
    *("--device=cpu", "--compile=False", "--eval_iters=20", "--log_interval=1", "--block_size=64", "--batch_size=12"),
    *("--n_layer=4", "--n_head=4", "--n_embd=128", "--max_iters=2000", "--lr_decay_iters=2000", "--dropout=0.0"),
]
PATCHES = {
    "train.py": [
        ("ctx = nullcontext() if device_type == 'cpu' else", "ctx ="),
        ("dtype = 'bfloat16' if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else 'float16'", "dtype = 'bfloat16'"),
    ],
    "model.py": [("use_fused = fused_available and device_type == 'cuda'", "use_fused = fused_available")],
}
SEED_LINE = "torch.manual_seed(1337 + seed_offset)"
STEPS = 2000
TRAIN_SHARE = 0.9


def add_options(parser: argparse.ArgumentParser) -> None:
    """What only this benchmark takes."""
    parser.add_argument("--peers", type=Path, required=True, help="folder that holds clones of other programs (nanoGPT)")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each program, each with its own seed")
    parser.add_argument("--core", type=int, default=0, help="the core that everything runs on")
    parser.add_argument("--our-steps", type=int, default=170, help="length of our run to L; its schedule ends there")
    parser.add_argument("--our-flags", default="", help="more words for llm-train in that run, as in '--batch-size 24'")


class Arena:
    """The folder everything happens in, and how programs are started there: one core, one thread, quiet."""

    def __init__(self, folder: Path, text: Path, peer: Path, core: int) -> None:
        self.folder = folder
        self._peer = peer
        self._core = core
        characters = text.read_text(encoding="utf-8")
        boundary = int(len(characters) * TRAIN_SHARE)
        self.data = folder / "shakespeare"
        self.data.mkdir()
        (self.data / "train.txt").write_text(characters[:boundary], encoding="utf-8")
        (self.data / "valid.txt").write_text(characters[boundary:], encoding="utf-8")
        self._text = text

    def run(self, words: list[str], folder: Path) -> tuple[float, str]:
        """Start a program and wait; returns (Unix seconds of its start, its output). Raises RuntimeError with its last words."""
        started = time.time()
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(folder)}
        done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, preexec_fn=self._pin)
        if done.returncode:
            raise RuntimeError(f"{' '.join(words[:3])} ended with {done.returncode}: {done.stderr.strip()[-500:]}")
        return started, done.stdout

    def _pin(self) -> None:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {self._core})

    def nanogpt(self, seed: int, *, is_patched: bool, steps: int = STEPS) -> dict[str, float]:
        """One run of nanoGPT in a fresh copy of its tree."""
        tree = self.folder / f"nanogpt-{seed}-{is_patched}"
        shutil.copytree(self._peer, tree, ignore=shutil.ignore_patterns(".git", "assets"))
        edits = [("train.py", SEED_LINE, f"torch.manual_seed({1337 + seed})")]
        edits += [(file, old, new) for file, pairs in PATCHES.items() for old, new in pairs if is_patched]
        for file, old, new in edits:
            source = (tree / file).read_text()
            if old not in source:
                raise RuntimeError(f"nanoGPT's {file} has changed: {old!r} is not in it")
            (tree / file).write_text(source.replace(old, new))
        shutil.copy(self._text, tree / "data" / "shakespeare_char" / "input.txt")
        (tree / "requests.py").write_text("# The text lies there already: nothing is fetched.\n")
        self.run([sys.executable, "data/shakespeare_char/prepare.py"], tree)
        driver = [
            sys.executable,
            str(REPOSITORY / "benchmarks" / "nanogpt_driver.py"),
            *(["--keep-large-blocks"] if is_patched else []),
            "--",
        ]
        started, output = self.run([*driver, *NANOGPT_SETTING, f"--max_iters={steps}", f"--lr_decay_iters={steps}"], tree)
        found = json.loads(output.strip().splitlines()[-1])
        shutil.rmtree(tree)
        return {"seconds": found["ended"] - started, "loss": found["loss"]}

    def ours(self, preset: str, seed: int, flags: list[str]) -> dict[str, float]:
        """One run of llm-train from text to its last save; then, not counted, the loss over the whole validation split."""
        folder = self.folder / f"ours-{preset}-{seed}-{len(list(self.folder.iterdir()))}"
        folder.mkdir()
        train = [sys.executable, "-m", "llm_training.main", str(self.data), "--config", preset, "--seed", str(seed), "--output-dir", "run"]
        quiet = ["--evaluation.num-samples", "0", "--monitoring.plots", "false", "--evaluation.final-max-tokens", "4096"]
        started, _ = self.run([*train, *quiet, *flags], folder)
        ended = _end_of_training(folder / "run" / "metrics.jsonl")
        words = [sys.executable, "-m", "llm_training", "evaluate", "--model-path", "run", "--test-data", str(self.data / "valid.txt")]
        _, output = self.run([*words, "--stride", "64", "--json"], folder)
        shutil.rmtree(folder)
        return {"seconds": ended - started, "loss": json.loads(output)["figures"]["loss_nats"]}


def _end_of_training(metrics: Path) -> float:
    """When the last checkpoint was committed: from then on the model exists."""
    records = [json.loads(line) for line in metrics.read_text().splitlines()]
    return max(record["time"] for record in records if record["kind"] == "checkpoint")


def measure(options: argparse.Namespace) -> Result:
    """Every seed: nanoGPT as shipped, patched, ours to L, ours at equal steps in both recipes."""
    data = find_data()
    assert data is not None
    steps = 20 if options.quick else STEPS
    equal = ["--max-steps", str(steps), *(["--warmup-steps", "2"] if options.quick else [])]
    ours_to_loss = ["--max-steps", str(20 if options.quick else options.our_steps), *options.our_flags.split()]
    found: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-loss-") as name:
        arena = Arena(Path(name), data / "tinyshakespeare" / "input.txt", options.peers / "nanoGPT", options.core)
        for seed in range(1 if options.quick else options.seeds):
            runs = {
                "nanoGPT": lambda seed=seed: arena.nanogpt(seed, is_patched=False, steps=steps),
                "ours to L": lambda seed=seed: arena.ours("shakespeare_chars", seed, ours_to_loss),
                "nanoGPT patched": lambda seed=seed: arena.nanogpt(seed, is_patched=True, steps=steps),
                "ours, equal steps": lambda seed=seed: arena.ours("shakespeare_chars", seed, equal),
                "ours, nanoGPT's recipe": lambda seed=seed: arena.ours("nanogpt_cpu", seed, equal),
            }
            for key, run in runs.items():
                found.setdefault(key, []).append(run())
                print(f"  {key}, seed {seed}: {found[key][-1]['seconds']:.1f} s, loss {found[key][-1]['loss']:.4f}", flush=True)
    return _judge(found, options)


def _judge(found: dict[str, list[dict[str, float]]], options: argparse.Namespace) -> Result:
    seconds = {key: statistics.median(run["seconds"] for run in runs) for key, runs in found.items()}
    loss = {key: statistics.median(run["loss"] for run in runs) for key, runs in found.items()}
    target = loss["nanoGPT"]
    reaches = loss["ours to L"] <= target
    fair = min(seconds["nanoGPT"], seconds["nanoGPT patched"])
    remarks = (
        []
        if reaches
        else [f"our run to L ends at {loss['ours to L']:.4f}, above L = {target:.4f}: raise --our-steps; its ratio does not count"]
    )
    figures = [
        Figure(
            what="our time to L over nanoGPT's (the faster of shipped and patched)",
            value=seconds["ours to L"] / fair,
            unit="x",
            bar=1 / 6 if reaches else None,
            aim=0.1,
            is_ceiling=True,
        ),
        Figure(what="our time to L over nanoGPT's as shipped", value=seconds["ours to L"] / seconds["nanoGPT"], unit="x"),
        Figure(
            what="our loss after the same steps, default recipe, less L",
            value=loss["ours, equal steps"] - target,
            unit="nats",
            bar=-0.25,
            is_ceiling=True,
        ),
        Figure(what="the loss itself", value=loss["ours, equal steps"], unit="nats", bar=1.68, aim=1.60, is_ceiling=True),
        Figure(
            what="our loss with nanoGPT's recipe, less L",
            value=loss["ours, nanoGPT's recipe"] - target,
            unit="nats",
            bar=0.02,
            is_ceiling=True,
        ),
        Figure(what="L: nanoGPT after its steps, whole split", value=target, unit="nats"),
        Figure(what="nanoGPT as shipped", value=seconds["nanoGPT"], unit="s"),
        Figure(what="nanoGPT patched", value=seconds["nanoGPT patched"], unit="s"),
        Figure(what="ours to L", value=seconds["ours to L"], unit="s"),
    ]
    details: dict[str, Any] = {
        key: {name: summarize([run[name] for run in runs]) for name in ("seconds", "loss")} for key, runs in found.items()
    }
    details["our_steps"], details["our_flags"] = options.our_steps, options.our_flags
    return Result(figures=figures, details=details, remarks=remarks)


def main(arguments: list[str]) -> int:
    """Refuse in one line what cannot run, else measure."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--peers", type=Path)
    peers = parser.parse_known_args(arguments)[0].peers
    if peers is not None and not (peers / "nanoGPT" / "train.py").is_file():
        return missing(f"no nanoGPT in {peers}", f"git clone https://github.com/karpathy/nanoGPT {peers / 'nanoGPT'}")
    if find_data() is None:
        return missing("no Tiny Shakespeare", "set LLM_TRAINING_TEST_DATA to the folder that holds tinyshakespeare")
    return run_benchmark("time_to_loss", measure, DESCRIPTION, arguments=arguments, add_options=add_options)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
