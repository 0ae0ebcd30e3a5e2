# SPDX-License-Identifier: GPL-3.0-or-later
"""Places for images that are segmented within calls: few at once, a bounded queue before them."""

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from granulo_core.errors import GranuloError, Reason
from granulo_core.rpc.lifetime import CallLifetime

_LOOK_S = 0.1
"""How often a waiting call looks whether somebody still waits for it."""
_SHORTEST_RETRY_S = 0.5
_LONGEST_RETRY_S = 30.0
_WEIGHT = 0.3
"""Of the newest image in the mean time of an image."""


@dataclass(eq=False)
class _Ticket:
    is_counted: bool


class Slots:
    """Lets a few images in at once, the others in the order in which they came.

    Parameters
    ----------
    at_once : int
    waiting : int
        Calls that wait at most; the next one is refused at once.
    """

    def __init__(self, at_once: int, waiting: int) -> None:
        self._at_once = at_once
        self._free = at_once
        self._limit = waiting
        self._queue: deque[_Ticket] = deque()
        self._changed = threading.Condition()
        self._mean_s = 1.0

    @contextmanager
    def hold(self, lifetime: CallLifetime, *, is_stream: bool = False) -> Iterator[None]:
        """Hold a place during the block.

        Parameters
        ----------
        lifetime : CallLifetime
            Its end frees the place in the queue.
        is_stream : bool
            Images of streams are never refused: each stream sends only a few ahead.

        Raises
        ------
        GranuloError
            SERVER_BUSY when the queue is full; DEADLINE_PASSED or OPERATION_CANCELLED while
            waiting.
        """
        self._enter(lifetime, _Ticket(is_counted=not is_stream))
        started_s = time.monotonic()
        try:
            yield
        finally:
            with self._changed:
                self._mean_s += _WEIGHT * (time.monotonic() - started_s - self._mean_s)
                self._free += 1
                self._changed.notify_all()

    def _enter(self, lifetime: CallLifetime, ticket: _Ticket) -> None:
        with self._changed:
            counted = sum(other.is_counted for other in self._queue)
            is_full = counted >= self._limit and (self._free == 0 or len(self._queue) > 0)
            if ticket.is_counted and is_full:
                raise self._busy(counted)
            self._queue.append(ticket)
            try:
                while self._free == 0 or self._queue[0] is not ticket:
                    lifetime.check()
                    self._changed.wait(min(_LOOK_S, lifetime.left_s))
                lifetime.check()
                self._free -= 1
            finally:
                self._queue.remove(ticket)
                self._changed.notify_all()

    def _busy(self, waiting: int) -> GranuloError:
        until_free_s = self._mean_s * (waiting + 1) / self._at_once
        return GranuloError(
            Reason.SERVER_BUSY,
            f"{self._at_once} images are being segmented and {waiting} wait; try again, or use "
            "CreateSegmentation.",
            metadata={"waiting": str(waiting)},
            retry_after_s=min(max(until_free_s, _SHORTEST_RETRY_S), _LONGEST_RETRY_S),
        )
