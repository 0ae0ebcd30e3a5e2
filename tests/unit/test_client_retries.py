# SPDX-License-Identifier: GPL-3.0-or-later
"""A busy server is asked again when it says: not sooner, not together, not for ever."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from granulo_client.errors import GranuloClientError, ResourceExhaustedError, UnavailableError
from granulo_client.retries import Patience, with_retries


class Clock:
    """Notes the pauses instead of sleeping."""

    def __init__(self, share: float = 0.0) -> None:
        self.pauses: list[float] = []
        self.share = share

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)

    def uniform(self, low: float, high: float) -> float:
        return low + self.share * (high - low)


def busy(retry_after_s: float | None) -> GranuloClientError:
    return ResourceExhaustedError("busy", reason="SERVER_BUSY", retry_after_s=retry_after_s)


def patience(clock: Clock, timeout_s: float = 1000.0) -> Patience:
    return Patience(timeout_s, clock.sleep, clock.uniform)


def failing(*errors: GranuloClientError) -> "tuple[list[float], object]":
    left: list[float] = []
    waiting = list(errors)

    def attempt(left_s: float) -> str:
        left.append(left_s)
        if waiting:
            raise waiting.pop(0)
        return "done"

    return left, attempt


def test_a_busy_server_is_asked_again_after_growing_pauses() -> None:
    clock = Clock()
    left, attempt = failing(busy(2.0), busy(2.0), busy(2.0))
    assert with_retries(attempt, patience(clock)) == "done"
    assert clock.pauses == pytest.approx([2.0, 3.0, 4.5])
    assert len(left) == 4


def test_callers_that_were_refused_together_do_not_come_back_together() -> None:
    early, late = Clock(share=0.0), Clock(share=1.0)
    for clock in (early, late):
        with_retries(failing(busy(2.0))[1], patience(clock))
    assert early.pauses == [2.0]
    assert late.pauses == [3.0]


@settings(max_examples=50)
@given(st.lists(st.floats(0.01, 100.0), min_size=1, max_size=12), st.floats(0.0, 1.0))
def test_no_pause_is_shorter_than_the_server_asked_for(told: list[float], share: float) -> None:
    clock = Clock(share)
    with_retries(failing(*map(busy, told))[1], patience(clock, timeout_s=1e9))
    assert all(pause >= asked for pause, asked in zip(clock.pauses, told, strict=True))
    assert all(
        pause <= 1.5 * max(30.0, asked) for pause, asked in zip(clock.pauses, told, strict=True)
    )


def test_what_would_come_too_late_is_not_waited_for() -> None:
    clock = Clock()
    left, attempt = failing(busy(2.0), busy(2.0))
    with pytest.raises(ResourceExhaustedError) as caught:
        with_retries(attempt, patience(clock, timeout_s=1.0))
    assert caught.value.reason == "SERVER_BUSY"
    assert clock.pauses == []
    assert left == pytest.approx([1.0], abs=0.5)


@pytest.mark.parametrize(
    "error",
    [
        # The disk will not be free in a moment.
        ResourceExhaustedError("full", reason="STORE_FULL"),
        UnavailableError("nobody answers"),
        GranuloClientError("defect", code="INTERNAL", retry_after_s=1.0),
    ],
)
def test_other_errors_are_told_at_once(error: GranuloClientError) -> None:
    clock = Clock()
    with pytest.raises(GranuloClientError) as caught:
        with_retries(failing(error)[1], patience(clock))
    assert caught.value is error
    assert clock.pauses == []


def test_a_model_server_that_restarts_is_waited_for() -> None:
    clock = Clock()
    error = UnavailableError("down", reason="MODEL_SERVER_UNAVAILABLE", retry_after_s=5.0)
    assert with_retries(failing(error)[1], patience(clock)) == "done"
    assert clock.pauses == [5.0]
    left, attempt = failing(*[error] * 9)
    with pytest.raises(UnavailableError):
        with_retries(attempt, patience(clock, timeout_s=1e6))
    assert len(left) == 6, "what is down for long is told"
