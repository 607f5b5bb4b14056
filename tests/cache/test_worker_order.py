"""Results come in the order of the numbers, whichever worker is quicker."""

import time

import pytest

from llm_training.cache.workers import in_this_process, in_threads, in_worker_processes


class SlowFirst:
    """A job whose even numbers take longer than its odd ones."""

    def open(self):
        return _slow_even


def _slow_even(number: int) -> int:
    time.sleep(0.05 if number % 2 == 0 else 0)
    if number == 13:
        raise ValueError("thirteen")
    return number * number


@pytest.mark.parametrize("way", [in_this_process, in_threads, in_worker_processes])
def test_results_come_in_order(way):
    numbers = [4, 3, 8, 1, 2, 5, 7]
    assert list(way(SlowFirst(), numbers, 3)) == [(number, number * number) for number in numbers]


@pytest.mark.parametrize("way", [in_threads, in_worker_processes])
def test_what_came_before_a_failure_is_not_lost(way):
    seen = []
    with pytest.raises(ValueError, match="thirteen"):
        for number, _ in way(SlowFirst(), [2, 13, 4, 6], 2):
            seen.append(number)
    assert seen == [2]
