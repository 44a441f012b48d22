"""How jobs that wait become batches."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter

import pytest

from gpuflow.errors import Closed
from gpuflow.flow.batches import Batches, Job
from tests.waiting import LONGEST_SECONDS


@dataclass(slots=True, eq=False)
class Weighed(Job):
    weight: int


class Work:
    """Notes batches; the first of each thread wait until they are let through."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.begun, self.gate = threading.Semaphore(0), threading.Event()

    def __call__(self, batch: Sequence[Weighed]) -> None:
        self.batches.append([job.weight for job in batch])
        self.begun.release()
        assert self.gate.wait(LONGEST_SECONDS)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ([3, 3, 3], [[3, 3], [3]]),
        ([3, 4, 1], [[3], [4, 1]]),
        ([9, 1], [[9], [1]]),
        ([1, 9, 1], [[1], [9], [1]]),
        ([6, 6], [[6], [6]]),
        ([1] * 7, [[1] * 6, [1]]),
        ([0] * 70, [[0] * 64, [0] * 6]),
    ],
    ids=str,
)
def test_a_batch_weighs_no_more_than_is_allowed_unless_it_is_one_job(
    weights: list[int], expected: list[list[int]]
) -> None:
    work = Work()
    batches: Batches[Weighed] = Batches("weighed", work, weight=attrgetter("weight"), max_weight=6)
    for _ in range(2):  # both threads are at work
        batches.submit(Weighed(100))
        assert work.begun.acquire(timeout=LONGEST_SECONDS)
    jobs = [Weighed(weight) for weight in weights]
    for job in jobs:
        batches.submit(job)
    work.gate.set()
    for job in jobs:
        job.done.result(LONGEST_SECONDS)
    batches.close()
    assert sorted(work.batches[2:]) == sorted(expected)


def test_what_waits_is_done_before_the_end_and_nothing_is_taken_after_it() -> None:
    work = Work()
    work.gate.set()
    batches: Batches[Weighed] = Batches("weighed", work, weight=attrgetter("weight"), max_weight=1)
    jobs = [Weighed(1) for _ in range(20)]
    for job in jobs:
        batches.submit(job)
    batches.close()
    batches.close()
    assert all(job.done.done() for job in jobs)
    assert sum(map(len, work.batches)) == 20
    with pytest.raises(Closed):
        batches.submit(Weighed(1))
