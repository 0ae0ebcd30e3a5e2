# SPDX-License-Identifier: GPL-3.0-or-later
"""How long somebody waits for the answer of a call: work for nobody is stopped."""

import math
import time
from collections.abc import Callable
from typing import Self

import grpc

from granulo_core.errors import GranuloError, Reason


class CallLifetime:
    """The deadline of a call, and whether its caller is still there.

    Parameters
    ----------
    left_s : float
        Seconds until the deadline; infinite without one.
    is_active : callable
        Whether the caller is still there.
    """

    def __init__(
        self, left_s: float = math.inf, is_active: Callable[[], bool] = lambda: True
    ) -> None:
        self._end_s = time.monotonic() + left_s
        self._is_active = is_active

    @classmethod
    def of(cls, context: grpc.ServicerContext) -> Self:
        """Lifetime of the call that a servicer answers."""
        # None without a deadline, whatever the stubs say.
        left_s: float | None = context.time_remaining()
        return cls(math.inf if left_s is None else left_s, context.is_active)

    @property
    def left_s(self) -> float:
        """Seconds until the deadline, at least 0; infinite without one."""
        return max(0.0, self._end_s - time.monotonic())

    @property
    def is_over(self) -> bool:
        """Whether nobody waits any more."""
        return self.left_s <= 0 or not self._is_active()

    def check(self) -> None:
        """Raise DEADLINE_PASSED or OPERATION_CANCELLED where nobody waits any more."""
        if self.left_s <= 0:
            raise GranuloError(
                Reason.DEADLINE_PASSED,
                "The call's deadline passed before its work was done; allow more time, or create "
                "an operation instead.",
            )
        if not self._is_active():
            raise GranuloError(Reason.OPERATION_CANCELLED, "The caller cancelled the call.")


ENDLESS = CallLifetime()
"""For work that no call waits for."""
