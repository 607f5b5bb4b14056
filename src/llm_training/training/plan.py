"""Every "how many?" and "due?" of a run, on integers and fractions, without torch.

Legend: a *sequence* is one row of the packed cache; an *effective batch* is the sequences of one optimizer step over
all ranks and micro-batches; ``step`` counts completed optimizer steps. Fractions given as decimals are taken as the
decimal that was written (0.8 is 4/5), so no step is lost to binary rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction


def exact(value: float | Fraction) -> Fraction:
    """The decimal a person wrote, exactly: ``exact(0.8) == Fraction(4, 5)``."""
    return Fraction(str(value))


def epoch_sequences(sequences: int, fraction: float) -> int:
    """Rows that one epoch takes: floor(fraction x sequences)."""
    return math.floor(exact(fraction) * sequences)


def steps_for_epochs(sequences: int, epochs: float, fraction: float, effective_batch: int) -> int:
    """floor(epochs x fraction x sequences / effective batch); batches may straddle epochs."""
    return math.floor(exact(epochs) * exact(fraction) * sequences / effective_batch)


def steps_after_join(closed_sequences: int, open_epochs: float | Fraction, sequences: int, fraction: float, effective_batch: int) -> int:
    """Total steps once the cache holds ``sequences`` rows.

    Args:
        closed_sequences: rows that the closed epochs took, at their own sizes.
        open_epochs: epochs that are open or yet to come.
        sequences: rows now.
    """
    return math.floor((closed_sequences + exact(open_epochs) * exact(fraction) * sequences) / effective_batch)


def warmup_for_ratio(ratio: float, steps: int) -> int:
    """Smart warm-up: the ratio of the steps that the full dataset would take, floored."""
    return math.floor(exact(ratio) * steps)


@dataclass(frozen=True)
class Join:
    """A recorded change of the total after ``step`` steps: new rows were taken in, or the time budget was re-planned."""

    step: int
    total_steps: int
    sequences: int
    reason: str


@dataclass(frozen=True)
class TrainingPlan:
    """Everything that decides what a step does, besides the weights. Recorded in each checkpoint.

    ``total_steps`` and ``sequences`` are those now, ``first_total_steps`` and ``first_sequences`` those before any join;
    ``decay_start`` is the progress (0 to 1) at which the wsd schedule begins to decay; ``horizon_steps`` is where the
    schedule ends when that is not the total.
    """

    total_steps: int
    first_total_steps: int
    warmup_steps: int
    effective_batch: int
    sequence_length: int
    sequences: int
    first_sequences: int
    epochs: float | None
    epoch_fraction: float
    decay_start: float
    horizon_steps: int | None
    logging_steps: int
    eval_steps: int
    save_steps: int
    joins: tuple[Join, ...] = ()

    @property
    def tokens_per_step(self) -> int:
        """Tokens of one optimizer step over all ranks and micro-batches."""
        return self.effective_batch * self.sequence_length

    @property
    def target_tokens(self) -> int:
        """Tokens of the whole run."""
        return self.total_steps * self.tokens_per_step

    def progress(self, step: float) -> float:
        """Share of the schedule done at ``step``, 0 to 1, continuous at every join.

        Without joins this is step / total. After a join at step j with progress p_j it is
        p_j + (1 - p_j)(step - j)/(T2 - j): what is left of the schedule is stretched over what is left of the run.
        """
        if self.horizon_steps is not None:
            return min(1.0, step / self.horizon_steps)
        start, done, total = 0.0, 0.0, float(self.first_total_steps)
        for join in self.joins:
            if join.step > step:
                break
            if total > start:
                done += (1.0 - done) * (join.step - start) / (total - start)
            start, total = float(join.step), float(join.total_steps)
        if total <= start:
            return 1.0
        return min(1.0, done + (1.0 - done) * (step - start) / (total - start))

    def joined(self, join: Join) -> TrainingPlan:
        """The plan with one more join."""
        return replace(self, joins=(*self.joins, join), total_steps=join.total_steps, sequences=join.sequences)

    def is_decaying(self, step: int) -> bool:
        """True once the decay has begun: data that arrives now waits for the next run."""
        return self.progress(step) >= self.decay_start

    def as_json(self) -> dict[str, object]:
        """The plan as it is recorded in a checkpoint."""
        return asdict(self)

    @classmethod
    def from_json(cls, recorded: dict[str, object]) -> TrainingPlan:
        """The plan that :meth:`as_json` recorded."""
        values = dict(recorded)
        joins = values.pop("joins", ())
        assert isinstance(joins, Sequence)
        return cls(**values, joins=tuple(Join(**join) for join in joins))  # type: ignore[arg-type]


def is_due(step: int, every: int, total: int) -> bool:
    """True at multiples of ``every`` and at the end."""
    return step > 0 and (step % every == 0 or step == total)


def micro_batches_for(share: int, micro_batch: int) -> list[tuple[int, int]]:
    """Bounds of the micro-batches of one rank's share of a step, as offsets into that share.

    The last one may be smaller, so any micro-batch size serves any effective batch.
    """
    return [(start, min(start + micro_batch, share)) for start in range(0, share, micro_batch)]


def steps_for_time(steps_done: int, seconds_left: float, seconds_per_step: float) -> int:
    """Total steps that end on time at the measured speed; at least one more step."""
    return steps_done + max(1, math.floor(seconds_left / seconds_per_step))


def default_interval(total_steps: int, parts: int) -> int:
    """An interval that divides the run in about ``parts``, rounded to two leading digits so that it reads well."""
    interval = max(1, total_steps // parts)
    scale = 10 ** max(0, len(str(interval)) - 2)
    return max(1, interval // scale * scale)
