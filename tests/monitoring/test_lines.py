import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_training import events
from llm_training.monitoring import lines
from tests.monitoring import runs_of_events as made

CLASSIC = "Step   770/26,235 ( 2.9%) | Loss: 5.583 | 106,212 tok/s | ETA: 04:23h"


def test_the_progress_line_is_the_classic_one():
    assert lines.progress_line(made.step(), None).plain == CLASSIC


def test_validation_loss_and_utilisation_follow():
    text = lines.progress_line(made.step(mfu_fraction=0.312), 5.4).plain
    assert text == CLASSIC + " | Val: 5.400 | MFU: 31.2%"


@pytest.mark.parametrize("width", [20, 40, 60, 72, 79, 80, 100, 140, 300])
def test_the_live_line_fits_into_its_row(width):
    line = lines.live_progress(made.step(mfu_fraction=0.312), 5.4, width, lines.UNICODE)
    assert line.cell_len <= width - 1
    assert "\n" not in line.plain
    assert ("─" in line.plain) == (width in (79, 80, 140, 300))  # extras come first, a bar takes what is left
    assert ("Loss" in line.plain) == (width >= 40)
    assert ("ETA: 04:23h" in line.plain) == (width >= 60)
    assert (CLASSIC in line.plain) == (width > len(CLASSIC))


def test_steps_of_unknown_total_have_no_share_and_no_bar():
    line = lines.live_progress(made.step(total=0, eta_seconds=None), None, 100, lines.UNICODE)
    assert line.plain == "Step 770 | Loss: 5.583 | 106,212 tok/s | ETA: --:--"


def test_a_skipped_step_shows_its_loss_as_nan():
    assert "Loss: nan" in lines.progress_line(made.step(loss_nats=math.nan, is_skipped=True), None).plain


@given(st.floats(-2, 2), st.integers(1, 60))
def test_a_bar_has_its_width(fraction, width):
    for glyphs in (lines.UNICODE, lines.ASCII):
        assert len(lines.bar(fraction, width, glyphs).plain) == width
    assert set(lines.bar(1.0, width, lines.ASCII).plain) == {"#"}
    assert set(lines.bar(0.0, width, lines.ASCII).plain) == {"-"}


@pytest.mark.parametrize(
    ("encoding", "glyphs"),
    [("utf-8", lines.UNICODE), ("ascii", lines.ASCII), ("latin-1", lines.ASCII), (None, lines.ASCII), ("no-such", lines.ASCII)],
)
def test_terminals_without_the_characters_get_ascii(encoding, glyphs):
    assert lines.choose_glyphs(encoding) is glyphs


def test_the_lines_of_each_event():
    assert lines.evaluation(made.evaluation(is_best=True), lines.UNICODE).plain == (
        "Eval 770 | Loss: 5.412 | Perplexity: 224.1 | Bits/byte: 2.412 | Accuracy: 12.3% | ★ best | 65,536 tokens in 3.20 s"
    )
    assert "Bits/byte" not in lines.evaluation(made.evaluation(bits_per_byte=None, source="books"), lines.UNICODE).plain
    assert lines.evaluation(made.evaluation(source="books"), lines.UNICODE).plain.startswith("Eval books 770 | ")
    assert lines.checkpoint(made.checkpoint(labels=("epoch-1", "final"))).plain == (
        "Saved 770 | checkpoints/step-00000770 | 82.3 MB | waited 0.02 s, written in 0.31 s | epoch-1, final"
    )
    epoch = events.EpochCompleted(epoch=1, step=5247, elapsed_hours=1.234, remaining_hours=10.766)
    assert lines.epoch(epoch).plain == "Epoch 1 | Step 5,247 | Elapsed: 1.23h | Remaining: 10.77h"
    unlimited = events.EpochCompleted(epoch=2, step=9, elapsed_hours=1.0, remaining_hours=None)
    assert lines.epoch(unlimited).plain == "Epoch 2 | Step 9 | Elapsed: 1.00h"
    grown = events.CacheGrown(step=770, old_sequences=352_217, new_sequences=472_240, old_total_steps=19_567, new_total_steps=26_235)
    assert lines.growth(grown, lines.UNICODE).plain == (
        "Dataset expanded: 352,217 → 472,240 sequences (+34.1%) | Total steps: 19,567 → 26,235 | from step 770"
    )
    assert lines.notice(events.Notice(message="a\x1bb", level="warning")).plain == "Warning: a\\x1bb"
    assert lines.notice(events.Notice(message="x", level="of no kind")).plain == "Note: x"
    skip = events.StepSkipped(step=5, reason="loss is nan", consecutive=2, remedies=("lower it",))
    assert [line.plain for line in lines.skipped(skip)] == ["Skipped 5 | loss is nan | 2 in a row", "  - lower it"]


def test_the_plan_is_a_table_under_a_titled_rule():
    shown = [line.plain for line in lines.plan(made.plan(), 60, lines.ASCII)]
    assert shown == [
        "-- 415M_FineWeb_512_run_1 " + "-" * 33,
        "  Data      packed cache",
        "  Samples   472,240 | Batches: 39,353 | Seq length: 512",
        "  Two columns make a table",
        "",
    ]


def test_a_plan_without_lines_still_tells_its_numbers():
    bare = events.PlanReady(run_name="x", total_steps=26_235, warmup_steps=3_472, tokens_per_step=36_864)
    shown = "\n".join(line.plain for line in lines.plan(bare, 80, lines.UNICODE))
    assert "26,235" in shown and "3,472 steps" in shown and "36,864 tokens" in shown


def test_samples_are_quoted_folded_and_harmless():
    event = events.SampleGenerated(step=3, prompt="ab", text="c" * 40 + "\n\x1b[2J漢字" * 1)
    shown = lines.sample(event, 30, lines.UNICODE)
    assert shown[0].plain == "Sample 1 of 1, after step 3"
    assert all(line.cell_len < 30 for line in shown)
    assert "\x1b" not in "".join(line.plain for line in shown)
    assert "".join(line.plain.removeprefix("  │ ") for line in shown[1:-1]) == "ab" + "c" * 40 + "\\x1b[2J漢字"


def test_a_wide_sample_folds_by_cells():
    shown = lines.sample(events.SampleGenerated(step=3, prompt="", text="漢字" * 30), 31, lines.UNICODE)
    assert all(line.cell_len < 31 for line in shown)
