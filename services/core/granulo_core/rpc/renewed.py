# SPDX-License-Identifier: GPL-3.0-or-later
"""A channel whose certificates may change: gRPC reads those of a channel once, when it is made."""

import threading
from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar

import grpc

T = TypeVar("T")


class RenewedChannel(grpc.Channel, Generic[T]):
    """Makes each call on a channel that was opened with what holds now.

    Parameters
    ----------
    current : callable
        What the channel depends on; another object each time that it changed.
    open_with : callable
        Opens a channel with it.
    """

    def __init__(self, current: Callable[[], T], open_with: Callable[[T], grpc.Channel]) -> None:
        self._current = current
        self._open_with = open_with
        self._lock = threading.Lock()
        self._holds = current()
        self._channel = open_with(self._holds)
        # Calls may still run on it: it is closed when the next but one is opened.
        self._previous: grpc.Channel | None = None

    def now(self) -> grpc.Channel:
        """The channel for the next call."""
        holds = self._current()
        with self._lock:
            if holds is not self._holds:
                if self._previous is not None:
                    self._previous.close()
                self._previous, self._channel = self._channel, self._open_with(holds)
                self._holds = holds
            return self._channel

    def unary_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """As `grpc.Channel`."""
        return _Callable(self, "unary_unary", (method, *args), kwargs)

    def unary_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """As `grpc.Channel`."""
        return _Callable(self, "unary_stream", (method, *args), kwargs)

    def stream_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """As `grpc.Channel`."""
        return _Callable(self, "stream_unary", (method, *args), kwargs)

    def stream_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """As `grpc.Channel`."""
        return _Callable(self, "stream_stream", (method, *args), kwargs)

    def subscribe(self, callback: Any, try_to_connect: bool | None = False) -> None:
        """As `grpc.Channel`, of the present channel."""
        self.now().subscribe(callback, bool(try_to_connect))

    def unsubscribe(self, callback: Any) -> None:
        """As `grpc.Channel`."""
        for channel in (self._channel, self._previous):
            if channel is not None:
                channel.unsubscribe(callback)

    def close(self) -> None:
        """Close it for good."""
        with self._lock:
            for channel in (self._channel, self._previous):
                if channel is not None:
                    channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Callable:
    """A method of whichever channel is the present one."""

    def __init__(
        self, owner: RenewedChannel[Any], kind: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self._owner = owner
        self._kind = kind
        self._args = args
        self._kwargs = kwargs
        self._made: tuple[grpc.Channel | None, Any] = (None, None)

    def _present(self) -> Any:
        channel = self._owner.now()
        made_on, made = self._made
        if made_on is not channel:
            made = getattr(channel, self._kind)(*self._args, **self._kwargs)
            self._made = (channel, made)
        return made

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._present()(*args, **kwargs)

    def with_call(self, *args: Any, **kwargs: Any) -> Any:
        return self._present().with_call(*args, **kwargs)

    def future(self, *args: Any, **kwargs: Any) -> Any:
        return self._present().future(*args, **kwargs)
