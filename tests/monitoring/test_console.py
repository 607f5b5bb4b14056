import io
import logging
import os
import re
import subprocess
import sys
import textwrap

import pytest

from llm_training import events
from llm_training.monitoring.console import Console, wants_live_line
from tests.monitoring import runs_of_events as made


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


def printed(produce, *, mode="plain", stream=None, **settings):
    stream = stream or io.StringIO()
    with Console(stream, mode=mode, environ={"TERM": "xterm-256color"}, **settings) as console:
        for event in produce:
            console(event)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("stream", "mode", "environ", "is_live"),
    [
        (Terminal(), "auto", {"TERM": "xterm"}, True),
        (Terminal(), "auto", {"TERM": "dumb"}, False),
        (Terminal(), "auto", {}, False),
        (io.StringIO(), "auto", {"TERM": "xterm"}, False),
        (io.StringIO(), "rich", {}, True),
        (Terminal(), "plain", {"TERM": "xterm"}, False),
        (None, "auto", {"TERM": "xterm"}, False),
    ],
)
def test_a_live_line_only_in_a_capable_terminal(stream, mode, environ, is_live):
    assert wants_live_line(stream, mode, environ) is is_live


def test_a_closed_stream_is_no_terminal():
    stream = io.StringIO()
    stream.close()
    assert not wants_live_line(stream, "auto", {"TERM": "xterm"})


def test_a_whole_run_in_plain_lines():
    text = printed(made.whole_run())
    assert "\x1b" not in text and "\r" not in text
    steps = [int(found[1]) for found in re.finditer(r"^Step +(\d+)/40 ", text, re.MULTILINE)]
    assert steps == [1, 10, 20, 30, 40]
    for expected in [
        "Data      packed cache",
        "Note: compile: off (short run)",
        "Tokenize and pack | 10.0 MB",
        "Eval 20 | Loss: 5.412",
        "★ best",
        "Saved 40 | checkpoints/step-00000040",
        "Skipped 40 | loss is nan",
        "  - lower the rate",
        "Dataset expanded: 352,217 → 472,240 sequences",
        "Epoch 1 | Step 40 | Elapsed: 1.23h | Remaining: 10.77h",
        "  │     return \\x1b[31m1",
        "Validation loss   5.412 (best, step 20)",
        "Checkpoint        runs/a/checkpoints/step-00000040",
    ]:
        assert expected in text
    assert "save_total_limit" not in text


def test_a_whole_run_in_a_terminal():
    text = printed(made.whole_run(), mode="auto", stream=Terminal())
    assert "\x1b[1;36m" in text or "\x1b[1m" in text
    screen = []
    for line in text.split("\n"):
        screen.append(re.sub(r"\x1b\[[0-9;]*m", "", line.rsplit("\x1b[2K", 1)[-1]))
    assert [line for line in screen if line.startswith("Step")] == [
        "Step 40/40 (100.0%) | Loss: 4.000 | 106,212 tok/s | ETA: 04:23h | Val: 5.412"
    ]
    assert any(line.startswith("Saved 30 ") for line in screen)
    assert not re.search(r"\x1b\[(?!2K|[0-9;]*m)", text)


def test_no_color_is_honoured():
    stream = Terminal()
    with Console(stream, environ={"TERM": "xterm", "NO_COLOR": "1"}) as console:
        console(made.evaluation())
    assert "\x1b[1;36m" not in stream.getvalue() and "36m" not in stream.getvalue()


def test_the_first_step_after_a_resume_and_the_last_are_printed():
    text = printed([made.step(number, 777) for number in range(768, 778)], logging_steps=100)
    assert re.findall(r"Step +(\d+)/", text) == ["768", "777"]


def test_log_records_become_notices():
    stream = io.StringIO()
    with Console(stream, mode="plain") as console:
        handler = console.logging_handler()
        handler.emit(logging.LogRecord("x", logging.WARNING, "", 0, "a %s\x1b", ("sink",), None))
    assert stream.getvalue() == "Warning: a sink\\x1b\n"


def test_free_text_is_made_printable():
    stream = io.StringIO()
    with Console(stream, mode="plain") as console:
        console.say("next:\n  llm-generate \x1b[2J")
    assert stream.getvalue() == "next:\n  llm-generate \\x1b[2J\n"


def test_a_run_with_a_vanished_reader_goes_on():
    """``llm-train | head -1``, the output closed at once, and stdout closed before the start."""
    program = textwrap.dedent("""
        import sys
        from llm_training.monitoring.console import Console
        from tests.monitoring import runs_of_events as made
        with Console() as console:
            for _ in range(20):
                for event in made.whole_run(1000):
                    console(event)
        print("reached the end", file=sys.stderr)
    """)
    for command in [
        f'"{sys.executable}" -c "$PROGRAM" | head -1',
        f'"{sys.executable}" -c "$PROGRAM" | true',
        f'"{sys.executable}" -c "$PROGRAM" >&-',
    ]:
        result = subprocess.run(["sh", "-c", command], env={**os.environ, "PROGRAM": program}, capture_output=True, text=True, timeout=60)
        assert result.stderr == "reached the end\n"


def test_final_figures_are_told_before_the_best_on_the_way():
    end = events.RunFinished(step=40, reason="finished", elapsed_seconds=1.0)
    text = printed([made.evaluation(40, is_best=True), made.evaluation(40, source="final", loss_nats=2.25, num_tokens=111_558), end])
    assert "Validation loss   2.250 (111,558 held-out tokens)" in text


def test_events_of_other_kinds_are_passed_over():
    assert printed([events.CheckpointRemoved(path="x", reason="y")]) == ""
