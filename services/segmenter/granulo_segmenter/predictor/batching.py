# SPDX-License-Identifier: GPL-3.0-or-later
"""A bounded queue before the network: equal requests together, and none for callers that are gone.

The settings have the names that they have in TensorFlow Serving's ``--batching_parameters_file``.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class BatchingParameters:
    """How much waits, and how much is computed together."""

    max_batch_size: int = 1
    """Requests of equal shape that are computed together; 1 computes each alone."""
    batch_timeout_micros: int = 0
    """How long a batch that is not full waits for more; 0 takes what waits anyway."""
    max_enqueued_batches: int = 64
    """Batches that wait at most; a request beyond them is refused at once."""
    num_batch_threads: int = 2
    """Batches that are computed at the same time."""

    def __post_init__(self) -> None:
        """Refuse what could never compute anything."""
        for name in ("max_batch_size", "max_enqueued_batches", "num_batch_threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}")
        if self.batch_timeout_micros < 0:
            raise ValueError(f"batch_timeout_micros must be 0 or more: {self.batch_timeout_micros}")

    @property
    def capacity(self) -> int:
        """Requests that wait at most."""
        return self.max_enqueued_batches * self.max_batch_size


class QueueFullError(Exception):
    """No place is left; nothing was accepted."""


class BatcherClosedError(Exception):
    """The server is stopping; nothing was accepted."""


@dataclass(frozen=True, eq=False)
class _Waiting(Generic[T, R]):
    key: Hashable
    item: T
    future: "Future[R]"
    due_s: float
    """When it goes also in a batch that is not full."""


class Batcher(Generic[T, R]):
    """Computes items in a few threads, those of equal key together, the oldest first.

    Parameters
    ----------
    compute : callable
        Takes items of one key, returns one result each in their order.
    parameters : BatchingParameters
    """

    def __init__(
        self, compute: Callable[[Sequence[T]], Sequence[R]], parameters: BatchingParameters
    ) -> None:
        self._compute = compute
        self._parameters = parameters
        self._waiting: deque[_Waiting[T, R]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, name=f"batch-{index}", daemon=True)
            for index in range(parameters.num_batch_threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, key: Hashable, item: T) -> "Future[R]":
        """Queue an item.

        Parameters
        ----------
        key : hashable
            Only items of equal key are computed together.
        item : object

        Returns
        -------
        Future
            Cancelled before its turn, it is never computed and its place is free at once.

        Raises
        ------
        QueueFullError, BatcherClosedError
        """
        future: Future[R] = Future()
        due_s = time.monotonic() + self._parameters.batch_timeout_micros / 1e6
        with self._changed:
            if self._closed:
                raise BatcherClosedError
            if len(self._waiting) >= self._parameters.capacity:
                self._drop_cancelled()
            if len(self._waiting) >= self._parameters.capacity:
                raise QueueFullError(f"{len(self._waiting)} requests wait already")
            self._waiting.append(_Waiting(key, item, future, due_s))
            self._changed.notify_all()
        return future

    @property
    def depth(self) -> int:
        """Requests that wait, cancelled ones left out."""
        with self._changed:
            return sum(not one.future.cancelled() for one in self._waiting)

    def close(self) -> None:
        """Cancel what waits, finish what is being computed."""
        with self._changed:
            self._closed = True
            for waiting in self._waiting:
                waiting.future.cancel()
            self._waiting.clear()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while batch := self._take():
            self._run(batch)
            # Held until the next batch comes, its images would be kept in memory meanwhile.
            del batch

    def _take(self) -> list[_Waiting[T, R]]:
        """The next batch; empty when there will be none."""
        size = self._parameters.max_batch_size
        with self._changed:
            while not self._closed:
                self._drop_cancelled()
                if not self._waiting:
                    self._changed.wait()
                    continue
                first = self._waiting[0]
                batch = [one for one in self._waiting if one.key == first.key][:size]
                left_s = first.due_s - time.monotonic()
                if len(batch) < size and left_s > 0:
                    self._changed.wait(left_s)
                    continue
                for one in batch:
                    self._waiting.remove(one)
                # Who cancels in this very moment is left out; the others go on.
                running = [one for one in batch if one.future.set_running_or_notify_cancel()]
                if running:
                    return running
        return []

    def _run(self, batch: list[_Waiting[T, R]]) -> None:
        try:
            results = self._compute([one.item for one in batch])
        except BaseException as error:
            if len(batch) == 1:
                batch[0].future.set_exception(error)
                return
            # Of several one may be the culprit: the others must not pay for it.
            for one in batch:
                self._run([one])
            return
        for one, result in zip(batch, results, strict=True):
            one.future.set_result(result)

    def _drop_cancelled(self) -> None:
        if any(one.future.cancelled() for one in self._waiting):
            kept = [one for one in self._waiting if not one.future.cancelled()]
            self._waiting = deque(kept)
