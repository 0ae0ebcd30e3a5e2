# SPDX-License-Identifier: GPL-3.0-or-later
"""The model server's queue: bounded, in order, equal requests together, nothing for nobody."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, Future, wait
from contextlib import contextmanager

import pytest

from granulo_segmenter.predictor.batching import (
    Batcher,
    BatcherClosedError,
    BatchingParameters,
    QueueFullError,
)

LONG_S = 20.0


class Machine:
    """Computes the doubles of numbers once it is let to."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.go = threading.Event()
        self.busy = threading.Semaphore(0)

    def compute(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        self.busy.release()
        assert self.go.wait(LONG_S)
        if -1 in items:
            raise ValueError("a bad one")
        return [2 * item for item in items]


@contextmanager
def running(machine: Machine, **parameters: int) -> Iterator[Batcher[int, int]]:
    batcher = Batcher(machine.compute, BatchingParameters(**{"num_batch_threads": 1, **parameters}))
    try:
        yield batcher
    finally:
        machine.go.set()
        batcher.close()


def occupy(machine: Machine, batcher: Batcher[int, int]) -> "Future[int]":
    """The only thread is busy from here on."""
    future = batcher.submit("busy", 100)
    assert machine.busy.acquire(timeout=LONG_S)
    return future


def test_what_waits_is_computed_together_by_key_and_in_order() -> None:
    machine = Machine()
    with running(machine, max_batch_size=3) as batcher:
        first = occupy(machine, batcher)
        keys = ["a", "b", "a", "a", "a", "b"]
        futures = [batcher.submit(key, number) for number, key in enumerate(keys)]
        machine.go.set()
        assert [future.result(LONG_S) for future in futures] == [0, 2, 4, 6, 8, 10]
        assert first.result(LONG_S) == 200
    assert machine.batches == [[100], [0, 2, 3], [1, 5], [4]]


def test_without_batching_each_is_computed_alone() -> None:
    machine = Machine()
    machine.go.set()
    with running(machine) as batcher:
        futures = [batcher.submit("a", number) for number in range(5)]
        assert [future.result(LONG_S) for future in futures] == [0, 2, 4, 6, 8]
    assert machine.batches == [[0], [1], [2], [3], [4]]


def test_a_batch_waits_for_more_no_longer_than_it_may() -> None:
    machine = Machine()
    machine.go.set()
    with running(machine, max_batch_size=2, batch_timeout_micros=60_000_000) as batcher:
        one = batcher.submit("a", 1)
        assert not wait([one], timeout=0.2).done
        two = batcher.submit("a", 2)
        assert (one.result(LONG_S), two.result(LONG_S)) == (2, 4)
    assert machine.batches == [[1, 2]]
    with running(machine, max_batch_size=2, batch_timeout_micros=1000) as batcher:
        assert batcher.submit("a", 3).result(LONG_S) == 6


def test_a_full_queue_refuses_at_once_and_recovers() -> None:
    machine = Machine()
    with running(machine, max_batch_size=2, max_enqueued_batches=2) as batcher:
        occupy(machine, batcher)
        waiting = [batcher.submit(number, number) for number in range(4)]
        with pytest.raises(QueueFullError):
            batcher.submit("a", 5)
        machine.go.set()
        assert [future.result(LONG_S) for future in waiting] == [0, 2, 4, 6]
        assert batcher.submit("a", 5).result(LONG_S) == 10


def test_what_is_cancelled_is_never_computed_and_makes_room() -> None:
    machine = Machine()
    with running(machine, max_enqueued_batches=2) as batcher:
        occupy(machine, batcher)
        gone, stays = batcher.submit("a", 1), batcher.submit("a", 2)
        assert gone.cancel()
        late = batcher.submit("a", 3)
        machine.go.set()
        assert (stays.result(LONG_S), late.result(LONG_S)) == (4, 6)
    assert machine.batches == [[100], [2], [3]]


def test_one_bad_request_does_not_fail_those_beside_it() -> None:
    machine = Machine()
    with running(machine, max_batch_size=3) as batcher:
        occupy(machine, batcher)
        futures = [batcher.submit("a", number) for number in (1, -1, 3)]
        machine.go.set()
        assert futures[0].result(LONG_S) == 2
        assert futures[2].result(LONG_S) == 6
        with pytest.raises(ValueError, match="a bad one"):
            futures[1].result(LONG_S)


def test_the_end_cancels_what_waits_and_finishes_what_is_computed() -> None:
    machine = Machine()
    batcher = Batcher(machine.compute, BatchingParameters(num_batch_threads=1))
    running_one = occupy(machine, batcher)
    waiting = batcher.submit("a", 1)
    closing = threading.Thread(target=batcher.close)
    closing.start()
    with pytest.raises(CancelledError):
        waiting.result(LONG_S)
    machine.go.set()
    closing.join(LONG_S)
    assert running_one.result(LONG_S) == 200
    with pytest.raises(BatcherClosedError):
        batcher.submit("a", 1)


def test_unusable_settings_are_told_by_name() -> None:
    for name in ("max_batch_size", "max_enqueued_batches", "num_batch_threads"):
        with pytest.raises(ValueError, match=name):
            BatchingParameters(**{name: 0})
    with pytest.raises(ValueError, match="batch_timeout_micros"):
        BatchingParameters(batch_timeout_micros=-1)
