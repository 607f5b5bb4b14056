"""Events of a small made-up run, shared by the tests of the sinks."""

from llm_training import events


def step(number=770, total=26_235, **changes):
    values = {
        "step": number,
        "total_steps": total,
        "loss_nats": 5.583,
        "learning_rate": 3e-4,
        "grad_norm": 1.1,
        "tokens": 36_864,
        "tokens_per_second": 106_212.0,
        "elapsed_seconds": float(number),
        "eta_seconds": 15_780.0,
    }
    return events.StepCompleted(**{**values, **changes})


def evaluation(number=770, **changes):
    values = {
        "step": number,
        "loss_nats": 5.412,
        "perplexity": 224.1,
        "bits_per_byte": 2.412,
        "accuracy": 0.123,
        "num_tokens": 65_536,
        "seconds": 3.2,
    }
    return events.EvaluationCompleted(**{**values, **changes})


def checkpoint(number=770, **changes):
    values = {
        "step": number,
        "path": f"runs/a/checkpoints/step-{number:08d}",
        "num_bytes": 82_300_000,
        "stall_seconds": 0.02,
        "write_seconds": 0.31,
    }
    return events.CheckpointSaved(**{**values, **changes})


def plan(total=26_235):
    return events.PlanReady(
        run_name="415M_FineWeb_512_run_1",
        total_steps=total,
        warmup_steps=524,
        tokens_per_step=36_864,
        lines=("Data: packed cache", "Samples: 472,240 | Batches: 39,353 | Seq length: 512", "Two columns make a table"),
    )


def whole_run(total=40):
    """Every kind of event, in the order of a run."""
    yield plan(total)
    yield events.Notice(message="compile: off (short run)")
    yield events.Progress(task="Tokenize and pack", done=0, total=10_000_000, unit="B")
    yield events.Progress(task="Tokenize and pack", done=10_000_000, total=10_000_000, unit="B")
    for number in range(1, total + 1):
        yield step(number, total, loss_nats=8.0 - number / 10)
        if number % 10 == 0:
            yield evaluation(number, is_best=number == 20)
            yield checkpoint(number)
    yield events.StepSkipped(step=total, reason="loss is nan", consecutive=1, remedies=("lower the rate",))
    yield events.CheckpointRemoved(path="runs/a/checkpoints/step-00000010", reason="save_total_limit 3")
    yield events.CacheGrown(step=total, old_sequences=352_217, new_sequences=472_240, old_total_steps=19_567, new_total_steps=26_235)
    yield events.EpochCompleted(epoch=1, step=total, elapsed_hours=1.234, remaining_hours=10.766)
    yield events.SampleGenerated(step=total, prompt="def f(", text="):\n\treturn \x1b[31m1\n")
    yield events.RunFinished(step=total, reason="finished", elapsed_seconds=298.2, checkpoint="runs/a/checkpoints/step-00000040")
