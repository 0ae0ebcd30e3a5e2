# SPDX-License-Identifier: Apache-2.0
"""Trying again where a server says when: it was busy and has accepted nothing."""

import random
import time
from collections.abc import Callable
from typing import TypeVar

from granulo_client.errors import GranuloClientError

T = TypeVar("T")

_GROWTH = 1.5
_LONGEST_PAUSE_S = 30.0
# A busy server is worth the whole time of a call; what is down may not come back in it.
_TRIES = {"RESOURCE_EXHAUSTED": 1000, "UNAVAILABLE": 5}


class Patience:
    """How long, and after which pauses, a call is tried again.

    Parameters
    ----------
    timeout_s : float
        For all attempts and pauses together.
    sleep, uniform : callable
        ``time.sleep`` and ``random.uniform``.
    """

    def __init__(
        self,
        timeout_s: float,
        sleep: Callable[[float], None] = time.sleep,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._end_s = time.monotonic() + timeout_s
        self._sleep = sleep
        self._uniform = uniform
        self._tries = 0

    @property
    def left_s(self) -> float:
        """Time for the next attempt."""
        return max(0.0, self._end_s - time.monotonic())

    def pause(self, error: GranuloClientError) -> None:
        """Wait for the next attempt, or raise ``error`` where there is to be none.

        There is one where the server said when (``RetryInfo``) and the time is not over by then;
        of something that is down, five at most.
        The pause grows with every attempt and is drawn at random, so that callers who were refused
        together do not come back together.
        """
        if error.retry_after_s is None or self._tries >= _TRIES.get(error.code, 0):
            raise error
        longest_s = min(error.retry_after_s * _GROWTH**self._tries, _LONGEST_PAUSE_S)
        # Never before the server asked for, half as much again at most.
        pause_s = max(longest_s, error.retry_after_s) * self._uniform(1.0, 1.5)
        if pause_s >= self.left_s:
            raise error
        self._tries += 1
        self._sleep(pause_s)


def with_retries(attempt: Callable[[float], T], patience: Patience) -> T:
    """Result of the first attempt that succeeds.

    Parameters
    ----------
    attempt : callable
        Takes the seconds that are left; raises `GranuloClientError`.
    patience : Patience
    """
    while True:
        try:
            return attempt(patience.left_s)
        except GranuloClientError as error:
            patience.pause(error)
