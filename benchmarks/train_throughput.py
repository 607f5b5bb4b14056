"""Training speed: the default model as ``llm-train`` runs it against plain fp32 eager PyTorch, in turn, in one process tree.

``ours``: bf16 autocast where the processor has it, compiled, Muon with fused AdamW, large blocks kept by the allocator.
``ours-eager``: the same without the compiler. ``ours-fp32``: our step in fp32, eager, the allocator untouched. ``plain``: the same
shape as a PyTorch user writes it first (see ``plain``). ``transformers``: Qwen3ForCausalLM of that shape, where it is installed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
from collections.abc import Callable
from contextlib import ExitStack
from importlib.util import find_spec
from typing import Any

from benchmarks.harness import Figure, Result, alternate, run_benchmark, significant, summarize
from benchmarks.plain import plain_session, transformers_session
from benchmarks.session import Load, TimedSession, default_load, gpt_shape
from benchmarks.worker import Worker, answer, requests
from llm_training.runtime.allocator import keep_large_blocks, prefer_huge_pages
from llm_training.runtime.device import Precision, choose_device, choose_precision
from llm_training.runtime.peak import measure_matmul_flops

DESCRIPTION = "tokens/s and MFU of the default model, and of 10M parameters at batch 32x256, against plain fp32 eager"
# The shape of a run must not depend on the noise of the day: this is the ceiling of the reference machine (PERFORMANCE, 2 cores).
REFERENCE_PEAK_FLOPS = 2.4e12
BF16 = Precision("bf16", "as asked")
LIMIT_SECONDS = 120.0
VARIANTS = {
    "plain": {},
    "ours-fp32": {"precision": "fp32", "keeps_blocks": False, "compiles": False},
    "ours-eager": {"precision": "auto", "keeps_blocks": True, "compiles": False},
    "ours": {"precision": "auto", "keeps_blocks": True, "compiles": True},
    "transformers": {},
}
PLAIN = {"plain": plain_session, "transformers": transformers_session}


def make_load(name: str) -> Load:
    """``default``: what the default job trains on the reference machine; ``10M``: the shape of the ceiling bar."""
    if name == "default":
        return default_load(REFERENCE_PEAK_FLOPS)
    return Load(spec=gpt_shape("10M", max_seq_len=256, vocab_size=4096), rows=32, micro_rows=32)


def measure(options: argparse.Namespace) -> Result:
    """Alternate all variants on the default model, then the ceiling shape with ours alone."""
    device = choose_device("auto")
    seconds = 0.2 if options.quick else 1.0
    # The ceiling is a best of many: read before and after, since other work on the machine can only lower it.
    ceiling = measure_matmul_flops(device, BF16, seconds=seconds)
    names = [name for name in VARIANTS if name != "transformers" or (find_spec("transformers") and not options.quick)]
    if options.quick:
        names.remove("ours")  # compiling takes a minute
    found, details = _compare("default", names, repetitions=1 if options.quick else 3, seconds=1.0 if options.quick else 5.0)
    best = names[-2] if names[-1] == "transformers" else names[-1]
    wide, wide_details = ({}, {}) if options.quick else _compare("10M", ["ours"], repetitions=3, seconds=5.0)
    ceiling = max(ceiling, measure_matmul_flops(device, BF16, seconds=seconds))
    load = make_load("default")
    figures = [
        Figure(what=f"{best}, default model", value=found[best], unit="tok/s"),
        Figure(what="plain fp32 eager, same model", value=found["plain"], unit="tok/s"),
        Figure(what=f"{best} over plain", value=found[best] / found["plain"], unit="x", bar=3.0, aim=3.7),
        Figure(what=f"MFU of {best}, default model", value=_mfu(load, found[best], ceiling), unit="% of the bf16 ceiling"),
    ]
    if "transformers" in found:
        figures.append(Figure(what="ours over transformers fp32 eager", value=found["ours"] / found["transformers"], unit="x"))
    details = {"default": details, "ceiling_tflops": significant(ceiling / 1e12)}
    if wide:
        details["10M"] = wide_details
        share = _mfu(make_load("10M"), wide["ours"], ceiling)
        figures.append(Figure(what="share of the bf16 ceiling, 10M, 32x256", value=share, unit="%", bar=33.0, aim=50.0))
    remarks = [f"{name}: {remark}" for name in names for remark in details["default"][name]["built"]["remarks"]]
    return Result(figures=figures, details=details, remarks=remarks)


def _mfu(load: Load, tokens_per_second: float, ceiling: float) -> float:
    return 100 * tokens_per_second * load.flops_per_step / load.tokens / ceiling


def _compare(load_name: str, names: list[str], *, repetitions: int, seconds: float) -> tuple[dict[str, float], dict[str, Any]]:
    """Median tokens/s of each variant, and the samples behind it."""
    load = make_load(load_name)
    with ExitStack() as stack:
        workers = {name: stack.enter_context(Worker("benchmarks.train_throughput", {"variant": name, "load": load_name})) for name in names}
        steps = {name: max(2, round(seconds / worker.ask(steps=2)["seconds"])) for name, worker in workers.items()}
        runs: dict[str, Callable[[], float]] = {
            name: lambda name=name, worker=worker: load.tokens / worker.ask(steps=steps[name])["seconds"]
            for name, worker in workers.items()
        }
        samples = alternate(runs, repetitions, limit_seconds=LIMIT_SECONDS)
        facts = {name: worker.facts for name, worker in workers.items()}
    details = {name: {"tokens_per_second": summarize(samples[name]), "steps": steps[name], "built": facts[name]} for name in names}
    details["shape"] = {**dataclasses.asdict(load.spec), "rows": load.rows, "tokens_per_step": load.tokens}
    return {name: statistics.median(samples[name]) for name in names}, details


def serve(settings: dict[str, Any]) -> int:
    """The worker: build the variant, tell what was built, then time steps on request."""
    load = make_load(settings["load"])
    if settings["variant"] in PLAIN:
        choose_device("cpu")
        session = PLAIN[settings["variant"]](load)
        answer({"precision": "fp32", "is_compiled": False, "remarks": []})
    else:
        session = _serve_ours(load, VARIANTS[settings["variant"]])
    for request in requests():
        answer({"seconds": session.seconds_per_step(request["steps"])})
    return 0


def _serve_ours(load: Load, variant: dict[str, Any]) -> TimedSession:
    problem = None
    if variant["keeps_blocks"]:
        prefer_huge_pages()
        problem = keep_large_blocks()
    device = choose_device("auto")
    precision = choose_precision(variant["precision"], device)
    session = TimedSession(dataclasses.replace(load, compiles=variant["compiles"]), device, precision)
    remarks = [*session.remarks, *([f"allocator: {problem}"] if problem else [])]
    built = {"precision": precision.name, "is_compiled": session.is_compiled, "build_seconds": round(session.build_seconds, 1)}
    answer({**built, "remarks": remarks})
    return session


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        sys.exit(serve(json.loads(sys.argv[2])))
    sys.exit(run_benchmark("train_throughput", measure, DESCRIPTION))
