import contextlib
import io
import os
import threading
import time

import pytest

from llm_training.monitoring.outlet import Outlet


@pytest.fixture
def pipe():
    reader, writer = os.pipe()
    stream = os.fdopen(writer, "w", encoding="utf-8")
    yield reader, stream
    for close in (lambda: os.close(reader), stream.close):
        with contextlib.suppress(OSError):
            close()


def read_all(descriptor):
    chunks = []
    while chunk := os.read(descriptor, 1 << 16):
        chunks.append(chunk)
    return b"".join(chunks).decode()


def test_lines_arrive_in_order(pipe):
    reader, stream = pipe
    outlet = Outlet(stream)
    for number in range(500):
        outlet.say(f"line {number} ─")
    collected = []
    thread = threading.Thread(target=lambda: collected.append(read_all(reader)))
    thread.start()
    outlet.close()
    stream.close()
    thread.join(5)
    assert collected[0].splitlines() == [f"line {number} ─" for number in range(500)]


def test_a_reader_asleep_on_a_full_pipe_holds_up_nobody(pipe):
    _, stream = pipe
    outlet = Outlet(stream, max_queued=300, max_queued_droppable=100)
    slowest = 0.0
    for number in range(3_000):
        start = time.perf_counter()
        outlet.say("x" * 500, is_droppable=number % 2 == 0)
        slowest = max(slowest, time.perf_counter() - start)
    assert slowest < 0.5
    assert outlet.num_dropped > 2_000
    start = time.perf_counter()
    outlet.close(timeout_seconds=0.3)
    assert time.perf_counter() - start < 1.0
    assert outlet.is_broken


def test_a_closed_pipe_ends_the_output_and_nothing_else(pipe):
    reader, stream = pipe
    os.close(reader)
    outlet = Outlet(stream)
    outlet.say("into the void")
    deadline = time.monotonic() + 5
    while not outlet.is_broken and time.monotonic() < deadline:
        time.sleep(0.01)
    assert outlet.is_broken
    outlet.say("still no error")
    outlet.close()


def test_no_stdout_at_all():
    outlet = Outlet(None)
    outlet.say("nowhere")
    outlet.show(lambda width: "x" * width)
    outlet.close()


def test_streams_without_a_descriptor_and_closed_ones():
    memory = io.StringIO()
    outlet = Outlet(memory)
    outlet.say("kept")
    outlet.close()
    outlet.close()
    assert memory.getvalue() == "kept\n"
    memory.close()
    late = Outlet(memory)
    late.say("nowhere")
    late.close()
    assert late.is_broken


def test_the_live_line_is_redrawn_below_lasting_lines():
    memory = io.StringIO()
    outlet = Outlet(memory, is_live=True, redraw_seconds=0.0)
    outlet.show(lambda width: f"live {width}")
    deadline = time.monotonic() + 5
    while "live" not in memory.getvalue() and time.monotonic() < deadline:
        time.sleep(0.01)
    outlet.say("lasting")
    outlet.close()
    assert memory.getvalue() == "live 80\r\x1b[2Klasting\nlive 80\n"


def test_of_many_live_lines_only_few_are_drawn():
    memory = io.StringIO()
    outlet = Outlet(memory, is_live=True, redraw_seconds=60.0)
    drawn = []
    for number in range(1_000):
        outlet.show(lambda width, number=number: drawn.append(number) or f"step {number}")
    outlet.close()
    assert drawn[-1] == 999
    assert len(drawn) <= 3
    assert memory.getvalue().endswith("step 999\n")


def test_characters_that_the_stream_lacks_do_not_stop_it(tmp_path):
    with (tmp_path / "log").open("w", encoding="ascii") as stream:
        outlet = Outlet(stream)
        outlet.say("a ─ b")
        outlet.close()
    assert (tmp_path / "log").read_text() == "a \\u2500 b\n"
