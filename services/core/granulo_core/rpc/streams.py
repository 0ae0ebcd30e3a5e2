# SPDX-License-Identifier: GPL-3.0-or-later
"""Bidirectional streams whose answers come in order of completion, a few in flight at a time."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from queue import SimpleQueue
from typing import TypeVar

from granulo_core.rpc.lifetime import CallLifetime

Request = TypeVar("Request")
Answer = TypeVar("Answer")

_LOOK_S = 0.5


def answered(
    requests: Iterator[Request],
    answer: Callable[[Request], Answer],
    lifetime: CallLifetime,
    *,
    in_flight: int,
    name: str,
) -> Iterator[Answer]:
    """Answer requests as they come.

    Parameters
    ----------
    requests : iterator
        Read only as fast as the answers are taken.
    answer : callable
        Runs in threads, `in_flight` at a time; it must not raise.
    lifetime : CallLifetime
        Of the stream.
    in_flight : int
        Requests that are read, worked on or waiting to be sent.
    name : str
        Of the threads.

    Yields
    ------
    Answer
    """
    answers: SimpleQueue[Answer | None] = SimpleQueue()
    places = threading.Semaphore(in_flight)
    # So that the threads' log lines and spans are those of the stream's call.
    context = copy_context()
    with ThreadPoolExecutor(in_flight, thread_name_prefix=name) as pool:

        def work(request: Request) -> None:
            answers.put(answer(request))

        def read() -> None:
            running: set[Future[None]] = set()
            try:
                for request in requests:
                    while not lifetime.is_over and not places.acquire(timeout=_LOOK_S):
                        pass
                    if lifetime.is_over:
                        return
                    running = {future for future in running if not future.done()}
                    running.add(pool.submit(context.copy().run, work, request))
            except Exception:
                # grpc raises when the client goes away: there is nobody to tell.
                for future in running:
                    future.cancel()
            finally:
                wait(running)
                answers.put(None)

        threading.Thread(target=read, daemon=True).start()
        while (found := answers.get()) is not None:
            yield found
            # Only now is there room: unsent answers count as in flight.
            places.release()
