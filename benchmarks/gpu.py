"""A CUDA device: throughput and MFU at 124M and 1B, attention backends, documents in a row, the chunked loss, the stall of a save.

Ends within nine minutes and needs torch alone: the parts it measures are imported from the engine, and what needs more (saving)
is left out with a remark. Every part is measured on its own, so one that fails costs its figures and no others.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import Figure, Result, alternate, missing, run_benchmark, significant
from benchmarks.session import Load, TimedSession, gpt_shape
from llm_training.model import attention
from llm_training.model.loss import head_loss_sum
from llm_training.runtime.device import Device, Precision, choose_device
from llm_training.runtime.peak import measure_matmul_flops, synchronize

DESCRIPTION = "one CUDA device: bf16 compiled training at 124M and 1B against the measured matmul peak, kernels, loss, saving"
LIMIT_SECONDS = 9 * 60 - 30
BF16 = Precision("bf16", "as asked")
# Rows a micro-batch: enough products to fill the device; memory allows far more.
TRAINING = {"124M": (1024, 64, 40.0, 50.0), "1B": (2048, 16, 50.0, 60.0)}
VARIANTS = (("eager", False), ("compiled", True))
DOCUMENT_TOKENS = 500
SMALL_TRAINING = {"10M": (32, 2, None, None)}


class Report:
    """Collects figures part by part and knows how much time is left."""

    def __init__(self) -> None:
        self.result = Result()
        self._started = time.monotonic()

    def part(self, name: str, needs_seconds: float, measure: Callable[[], dict[str, Any]]) -> None:
        """Measure one part unless too little time is left; what goes wrong in it is a remark."""
        left = LIMIT_SECONDS - (time.monotonic() - self._started)
        if left < needs_seconds:
            self.result.remarks.append(f"{name}: left out, {left:.0f} s remain and it may take {needs_seconds:.0f}")
            return
        start = time.monotonic()
        try:
            self.result.details[name] = measure()
        except Exception as error:  # a figure that cannot be had must not cost the others, nor the minutes behind them
            self.result.remarks.append(f"{name}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
        seconds = round(time.monotonic() - start, 1)
        self.result.details.setdefault(name, {})["seconds"] = seconds
        print(f"  {name}: {seconds} s", flush=True)


def measure(options: argparse.Namespace) -> Result:
    """All parts on the CUDA device."""
    return measure_on(choose_device("cuda"), quick=options.quick)


def measure_on(device: Device, *, quick: bool) -> Result:
    """All parts, the ones with bars first. (Tests run it small on a CPU.)"""
    report = Report()
    peak = measure_matmul_flops(device, BF16, size=256 if quick else None, seconds=0.1 if quick else 1.0)
    report.result.details["device"] = {"name": device.name, "bf16_peak_tflops": significant(peak / 1e12), **_memory(device)}
    report.result.figures.append(Figure(what="bf16 matmul", value=peak / 1e12, unit="TFLOP/s"))
    for name, shape in (SMALL_TRAINING if quick else TRAINING).items():
        report.part(f"train {name}", 100, lambda name=name, shape=shape: _training(report, device, peak, name, shape))
    report.part("attention", 40, lambda: _attention(device, quick=quick))
    report.part("documents", 40, lambda: _documents(device, quick=quick))
    report.part("train within documents", 100, lambda: _document_training(report, device, quick=quick))
    report.part("loss", 30, lambda: _loss(device, quick=quick))
    report.part("save", 60, lambda: _save(report, device, quick=quick))
    return report.result


def _memory(device: Device) -> dict[str, float]:
    if device.kind != "cuda":
        return {}
    free, total = torch.cuda.mem_get_info()
    return {"memory_gb": significant(total / 1e9), "memory_free_gb": significant(free / 1e9)}


def _reset_peak(device: Device) -> None:
    if device.kind == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _peak_gb(device: Device) -> float | None:
    return significant(torch.cuda.max_memory_allocated() / 1e9) if device.kind == "cuda" else None


def _training(report: Report, device: Device, peak: float, name: str, shape: tuple[int, int, float | None, float | None]) -> dict[str, Any]:
    """Tokens/s and MFU, compiled and eager; against the device's own measured peak."""
    length, rows, bar, aim = shape
    load = Load(spec=gpt_shape(name, max_seq_len=length), rows=rows, micro_rows=rows)
    found: dict[str, Any] = {"sequence_length": length, "rows": rows}
    for label, compiles in VARIANTS:
        _reset_peak(device)
        session = TimedSession(dataclasses.replace(load, compiles=compiles), device, BF16)
        session.seconds_per_step(3)
        seconds = statistics.median(session.seconds_per_step(5) for _ in range(3))
        found[label] = {
            "tokens_per_second": significant(load.tokens / seconds),
            "mfu_percent": significant(100 * load.flops_per_step / seconds / peak),
            "step_seconds": significant(seconds),
            "build_seconds": significant(session.build_seconds),
            "peak_memory_gb": _peak_gb(device),
            "remarks": session.remarks,
        }
        if session.is_compiled or not compiles:
            found["best"] = label
        session.close()
        del session
    best = found[found["best"]]
    report.result.figures += [
        Figure(what=f"{name}, bf16, {found['best']}", value=best["tokens_per_second"], unit="tok/s"),
        Figure(what=f"MFU at {name}, bf16, {found['best']}", value=best["mfu_percent"], unit="% of the measured peak", bar=bar, aim=aim),
    ]
    return found


def _attention(device: Device, *, quick: bool) -> dict[str, Any]:
    """Milliseconds forward and backward of each backend that works here, causal, 16 heads of 128, 16,384 tokens."""
    found: dict[str, Any] = {}
    for length in (256,) if quick else (512, 1024, 2048, 8192):
        shape = (max(1, (512 if quick else 16_384) // length), 16, length, 128)
        inputs = [torch.randn(shape, device=device.torch, dtype=torch.bfloat16, requires_grad=True) for _ in range(3)]
        visible = attention.Visibility(num_tokens=length)
        for name, backend in attention.BACKENDS.items():
            if name == "split" or (name == "eager" and length > 2048):  # split is for processors, and for documents
                continue
            try:
                mask = backend.prepare(visible, (shape[0], 16, 1), torch.bfloat16, device.torch)
                milliseconds = _milliseconds(
                    device, lambda backend=backend, mask=mask, inputs=inputs: backend.attend(*inputs, mask, 0.0).sum().backward()
                )
                found.setdefault(str(length), {})[name] = significant(milliseconds)
            except Exception as error:  # a backend that this device or build lacks is a finding
                found.setdefault(str(length), {})[name] = f"{type(error).__name__}"
    return found


def _random_documents(rows: int, length: int) -> torch.Tensor:
    """Segment numbers [rows, length] of documents of 500 tokens in the mean."""
    generator = torch.Generator().manual_seed(0)
    return (torch.rand(rows, length, generator=generator) < 1 / DOCUMENT_TOKENS).long().cumsum(dim=1)


def _documents(device: Device, *, quick: bool) -> dict[str, Any]:
    """Milliseconds forward and backward of attention within documents, preparing the mask included, against causal across them."""
    found: dict[str, Any] = {}
    for length in (256,) if quick else (2048, 8192):
        rows = max(1, (512 if quick else 16_384) // length)
        segments = _random_documents(rows, length).to(device.torch)
        inputs = [torch.randn(rows, 16, length, 128, device=device.torch, dtype=torch.bfloat16, requires_grad=True) for _ in range(3)]
        ways: dict[str, Callable[[], torch.Tensor]] = {"across, sdpa": lambda v=inputs: attention.BACKENDS["sdpa"].attend(*v, None, 0.0)}
        for name in [name for name in attention.BACKENDS if name not in ("eager", "flash")]:
            ways[name] = lambda name=name, v=inputs, s=segments: _within_documents(attention.BACKENDS[name], v, s)
        if importlib.util.find_spec("torch.nn.attention.varlen") is not None:
            ways["varlen"] = lambda v=inputs, s=segments: _varlen(v, s)
        for name, attend in ways.items():
            try:
                milliseconds = _milliseconds(device, lambda attend=attend: attend().sum().backward())
                found.setdefault(str(length), {})[name] = significant(milliseconds)
            except Exception as error:  # a backend that this device or build lacks is a finding
                found.setdefault(str(length), {})[name] = f"{type(error).__name__}"
    return found


def _within_documents(backend: attention.Backend, inputs: list[torch.Tensor], segments: torch.Tensor) -> torch.Tensor:
    rows, heads, length, _ = inputs[0].shape
    visible = attention.Visibility(length, segment_ids=segments)
    mask = backend.prepare(visible, (rows, heads, 1), inputs[0].dtype, inputs[0].device)
    return backend.attend(inputs[0], inputs[1], inputs[2], mask, 0.0)


def _varlen(inputs: list[torch.Tensor], segments: torch.Tensor) -> torch.Tensor:
    """Torch's kernel for sequences laid end to end; it wants their bounds, whose number differs from batch to batch."""
    from torch.nn.attention.varlen import varlen_attn

    opens = torch.ones_like(segments, dtype=torch.bool)
    opens[:, 1:] = segments[:, 1:] != segments[:, :-1]
    bounds = torch.cat([opens.flatten().nonzero().flatten(), torch.tensor([segments.numel()], device=segments.device)]).int()
    q, k, v = (tensor.transpose(1, 2).flatten(0, 1) for tensor in inputs)
    return varlen_attn(q, k, v, bounds, bounds, segments.shape[1], segments.shape[1], window_size=(-1, 0))


def _document_training(report: Report, device: Device, *, quick: bool) -> dict[str, Any]:
    """Tokens/s of compiled training within documents against across them, in turn, on the same tokens."""
    name, shape = next(iter((SMALL_TRAINING if quick else TRAINING).items()))
    length, rows = (16, 2) if quick else (4 * shape[0], shape[1] // 4)
    load = Load(spec=gpt_shape(name, max_seq_len=length), rows=rows, micro_rows=rows, compiles=VARIANTS[-1][1])
    sessions = {"across": TimedSession(load, device, BF16), "within": TimedSession(load, device, BF16)}
    segments = _random_documents(rows, length)
    sessions["within"].batches = [
        [dataclasses.replace(part, segment_ids=segments[: len(part.input_ids)]) for part in step] for step in sessions["within"].batches
    ]
    sessions["within"].seconds_per_step(3)  # compiled anew, with documents
    seconds = alternate({key: lambda s=session: s.seconds_per_step(5) for key, session in sessions.items()}, 3)
    found: dict[str, Any] = {"sequence_length": length, "rows": rows}
    for key, session in sessions.items():
        found[key] = {"tokens_per_second": significant(load.tokens / statistics.median(seconds[key])), "remarks": session.remarks}
        session.close()
    ratio = statistics.median(seconds["across"]) / statistics.median(seconds["within"])
    what = f"{name}, rows of {length}: speed within documents of {DOCUMENT_TOKENS} tokens, against across"
    report.result.figures.append(Figure(what=what, value=ratio, unit="x"))
    return found


def _loss(device: Device, *, quick: bool) -> dict[str, Any]:
    """Head and cross-entropy over 50,304 entries: milliseconds and peak memory by the bound on logits."""
    rows, width, vocabulary = (512, 128, 4_096) if quick else (32_768, 768, 50_304)
    hidden = torch.randn(rows, width, device=device.torch, dtype=torch.bfloat16, requires_grad=True)
    weight = torch.randn(vocabulary, width, device=device.torch, requires_grad=True)
    labels = torch.randint(vocabulary, (rows,), device=device.torch)
    found = {}
    for megabytes in (64, 256, 1024, 16_384):
        _reset_peak(device)
        milliseconds = _milliseconds(device, lambda m=megabytes: head_loss_sum(hidden, weight, labels, logits_bytes=m * 2**20).backward())
        found[f"{megabytes} MiB"] = {"ms": significant(milliseconds), "peak_gb": _peak_gb(device)}
    plain = _milliseconds(
        device, lambda: torch.nn.functional.cross_entropy((hidden @ weight.to(hidden.dtype).T).float(), labels, reduction="sum").backward()
    )
    found["whole logits, fp32 loss"] = {"ms": significant(plain), "peak_gb": _peak_gb(device)}
    return found


def _milliseconds(device: Device, work: Callable[[], object]) -> float:
    """Median of ten, each waited for, after three that are not counted."""
    times = []
    for _ in range(13):
        synchronize(device)
        start = time.perf_counter()
        work()
        synchronize(device)
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times[3:])


def _save(report: Report, device: Device, *, quick: bool) -> dict[str, Any]:
    """Stall and write seconds of 1.5 GB on the device, through the background writer."""
    from llm_training.checkpoint.snapshot import Snapshot
    from llm_training.checkpoint.store import CheckpointStore

    rows = 16 if quick else 2_500
    tensors = {f"block.{number}": torch.randn(rows, 4096, device=device.torch) for number in range(12)}
    moments = {f"adamw.{key}.{name}": tensor.clone() for key in ("exp_avg", "exp_avg_sq") for name, tensor in tensors.items()}
    stalls, writes = [], []
    with tempfile.TemporaryDirectory(prefix="bench-save-") as name:
        store = CheckpointStore(Path(name))
        for step in range(4):
            synchronize(device)
            start = time.perf_counter()
            store.save_async(Snapshot(step=step, model_tensors=tensors, config={}, optimizer_tensors=moments))
            stalls.append(significant(time.perf_counter() - start))
            writes.extend(significant(done.write_seconds) for done in store.wait())
    stall = statistics.median(stalls[1:])
    report.result.figures.append(Figure(what="stall of a 1.5 GB checkpoint", value=stall, unit="s", bar=0.5, aim=0.25, is_ceiling=True))
    return {"stall_seconds": stalls, "write_seconds": writes}


if __name__ == "__main__":
    if not torch.cuda.is_available():
        sys.exit(missing("no CUDA device here", "run make bench-gpu on a machine with one"))
    sys.exit(run_benchmark("gpu", measure, DESCRIPTION))
