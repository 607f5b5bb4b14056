from llm_training.events import Progress
from llm_training.monitoring import lines, tasks


def progress(done, total=100e6, unit="B", task="Tokenize"):
    return Progress(task=task, done=done, total=total, unit=unit)


def test_rate_and_time_left_come_from_what_was_seen():
    board = tasks.TaskBoard()
    board.update(progress(20e6), 5.0)  # resumed at 20 MB: that was not done now
    task, is_due = board.update(progress(40e6), 7.0)
    assert not is_due
    assert tasks.progress_line(task).plain == "Tokenize  40.0% | 40.0 MB of 100 MB | 10.0 MB/s | ETA: 00:06m"
    assert tasks.live_line(task, 100, lines.ASCII).plain.startswith("#####")
    assert tasks.live_line(task, 30, lines.ASCII).cell_len == 29


def test_plain_lines_are_due_every_ten_seconds_and_at_the_end():
    board = tasks.TaskBoard()
    due = [
        board.update(progress(done), seconds)[1] for seconds, done in [(0, 0), (9, 10e6), (10, 20e6), (19, 30e6), (20, 40e6), (21, 100e6)]
    ]
    assert due == [False, False, True, False, True, True]


def test_a_finished_task_is_forgotten_and_may_start_anew():
    board = tasks.TaskBoard()
    board.update(progress(0), 0.0)
    task, _ = board.update(progress(100e6), 4.0)
    assert task.is_finished
    assert tasks.finished_line(task).plain == "Tokenize | 100 MB | 4.00 s, 25.0 MB/s"
    task, _ = board.update(progress(0), 9.0)
    assert task.started_seconds == 9.0


def test_unknown_totals_count_without_a_share():
    board = tasks.TaskBoard()
    board.update(progress(0, None, "documents"), 0.0)
    task, _ = board.update(progress(3_000, None, "documents"), 1.0)
    assert tasks.live_line(task, 80, lines.UNICODE).plain == "Tokenize | 3,000 documents | 3,000 documents/s"
    assert not task.is_finished


def test_a_clock_that_does_not_move_gives_no_rate():
    task, _ = tasks.TaskBoard().update(progress(5, 10, ""), 1.0)
    assert tasks.progress_line(task).plain == "Tokenize  50.0% | 5 of 10"


def test_work_in_one_piece_has_neither_amount_nor_rate():
    board = tasks.TaskBoard()
    begun, _ = board.update(progress(0, 1, ""), 1.0)
    assert tasks.progress_line(begun).plain == "Tokenize ..."
    done, is_due = board.update(progress(1, 1, ""), 3.0)
    assert is_due and tasks.finished_line(done).plain == "Tokenize | 2.00 s"
