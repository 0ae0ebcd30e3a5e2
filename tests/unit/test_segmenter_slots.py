# SPDX-License-Identifier: GPL-3.0-or-later
"""Places for calls: few at once, a bounded queue in order, and nobody waits for a caller that left.

And streams: read as fast as answers are taken, in order of completion, no image ends another.
"""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from granulo.segmenter.v1 import segmenter_service_pb2 as pb
from granulo_core.errors import Code, GranuloError, Reason
from granulo_core.imaging.reading.isolated import IsolatedReader
from granulo_core.rpc.lifetime import ENDLESS, CallLifetime
from granulo_core.store import LocalStore
from granulo_segmenter.calls import CallSegmenter
from granulo_segmenter.settings import SegmenterSettings
from granulo_segmenter.slots import Slots

LONG_S = 20.0


class Holders:
    """Calls in threads of their own that hold their places until they are told to go."""

    def __init__(self, slots: Slots) -> None:
        self.slots = slots
        self.entered: list[str] = []
        self.leave = threading.Semaphore(0)
        self.pool = ThreadPoolExecutor(16)

    def start(
        self, name: str, lifetime: CallLifetime = ENDLESS, *, is_stream: bool = False
    ) -> "Future[None]":
        def hold() -> None:
            with self.slots.hold(lifetime, is_stream=is_stream):
                self.entered.append(name)
                assert self.leave.acquire(timeout=LONG_S)

        before = len(self.slots._queue) + len(self.entered)
        future = self.pool.submit(hold)
        until(lambda: future.done() or len(self.slots._queue) + len(self.entered) > before)
        return future


@pytest.fixture
def holders() -> Iterator[Holders]:
    made = Holders(Slots(at_once=1, waiting=2))
    yield made
    made.leave.release(100)
    made.pool.shutdown()


def until(condition: Callable[[], bool]) -> None:
    end_s = time.monotonic() + LONG_S
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.005)


def test_calls_enter_in_the_order_in_which_they_came(holders: Holders) -> None:
    futures = [holders.start(name) for name in ("first", "second", "third")]
    assert holders.entered == ["first"]
    holders.leave.release(3)
    for future in futures:
        future.result(LONG_S)
    assert holders.entered == ["first", "second", "third"]


def test_a_full_queue_refuses_at_once_and_says_when_to_come_back(holders: Holders) -> None:
    for name in ("first", "second", "third"):
        holders.start(name)
    with pytest.raises(GranuloError, match="2 wait") as caught, holders.slots.hold(ENDLESS):
        pass
    assert caught.value.reason is Reason.SERVER_BUSY
    assert caught.value.code is Code.RESOURCE_EXHAUSTED
    assert caught.value.retry_after_s is not None
    assert 0.5 <= caught.value.retry_after_s <= 30.0
    # Nothing that was accepted is lost by it.
    holders.leave.release(3)
    until(lambda: len(holders.entered) == 3)


def test_without_a_queue_a_free_place_is_still_taken() -> None:
    slots = Slots(at_once=1, waiting=0)
    with slots.hold(ENDLESS), pytest.raises(GranuloError), slots.hold(ENDLESS):
        pass
    with slots.hold(ENDLESS):
        pass


@pytest.mark.parametrize(
    ("lifetime", "reason"),
    [
        (lambda: CallLifetime(0.05), Reason.DEADLINE_PASSED),
        (lambda: CallLifetime(is_active=lambda: False), Reason.OPERATION_CANCELLED),
    ],
)
def test_who_no_longer_waits_leaves_the_queue(
    holders: Holders, lifetime: Callable[[], CallLifetime], reason: Reason
) -> None:
    holders.start("first")
    gone = holders.start("gone", lifetime())
    with pytest.raises(GranuloError) as caught:
        gone.result(LONG_S)
    assert caught.value.reason is reason
    assert not holders.slots._queue
    holders.start("next")
    holders.leave.release(2)
    until(lambda: holders.entered == ["first", "next"])


def test_images_of_streams_wait_rather_than_being_refused(holders: Holders) -> None:
    for name in ("first", "second", "third"):
        holders.start(name)
    streamed = [holders.start(f"stream {index}", is_stream=True) for index in range(3)]
    holders.leave.release(6)
    for future in streamed:
        future.result(LONG_S)
    assert holders.entered[3:] == ["stream 0", "stream 1", "stream 2"]


def test_an_error_inside_frees_the_place() -> None:
    slots = Slots(at_once=1, waiting=1)
    for _ in range(3):
        with pytest.raises(ValueError, match="inside"), slots.hold(ENDLESS):
            raise ValueError("inside")


@pytest.fixture
def calls(local_store: LocalStore) -> Iterator[CallSegmenter]:
    # No server is there: images that cannot be read are refused before one is needed.
    settings = SegmenterSettings(
        store_url=local_store.url, model_server="127.0.0.1:9", call_patience_s=0.0
    )
    with IsolatedReader() as reader:
        yield CallSegmenter(local_store, settings, Slots(at_once=2, waiting=8), reader)


def bad_images(count: int, taken: list[int]) -> Iterator[pb.SegmentImagesRequest]:
    for index in range(count):
        taken.append(index)
        request = pb.SegmentImageRequest(inline=b"no image")
        yield pb.SegmentImagesRequest(correlation_id=str(index), request=request)


def test_a_stream_reads_on_only_as_its_answers_are_taken(calls: CallSegmenter) -> None:
    taken: list[int] = []
    answers = calls.stream(bad_images(50, taken), ENDLESS)
    for number in range(1, 11):
        assert next(answers).error.reason == "IMAGE_UNREADABLE"
        time.sleep(0.02)
        # Four are in flight, one more is in the reader's hand.
        assert len(taken) <= number + 5
    found = {next(answers).correlation_id for _ in range(40)}
    assert len(found) == 40
    assert next(answers, None) is None


def test_a_stream_whose_caller_left_ends(calls: CallSegmenter) -> None:
    active = [True]
    taken: list[int] = []
    answers = calls.stream(bad_images(1000, taken), CallLifetime(is_active=lambda: active[0]))
    next(answers)
    active[0] = False
    rest = list(answers)
    assert len(taken) < 1000
    assert len(rest) < 1000
