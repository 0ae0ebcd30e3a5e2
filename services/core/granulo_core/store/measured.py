# SPDX-License-Identifier: GPL-3.0-or-later
"""Time and failures of every operation of a store, for the metrics."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from inspect import isgeneratorfunction
from typing import Any, TypeVar

from granulo_core.errors import Code, GranuloError
from granulo_core.telemetry.metrics import record

T = TypeVar("T")

_OPERATIONS: Mapping[str, str] = {
    "put": "put",
    "put_file": "put",
    "get": "get",
    "get_file": "get",
    "read_chunks": "get",
    "stat": "stat",
    "exists": "exists",
    "list": "list",
    "children": "list",
    "scan": "list",
    "delete": "delete",
    "check_writable": "probe",
}
"""Label ``op`` by method of the port."""
_ANSWERS = frozenset({Code.NOT_FOUND, Code.INVALID_ARGUMENT})
"""What a store says about a key, when nothing is wrong with the store."""


def measured(store_class: type[T]) -> type[T]:
    """Measure a class' methods of `granulo_core.store.port.ObjectStore`."""
    for method, operation in _OPERATIONS.items():
        function = getattr(store_class, method)
        wrap = _generator if isgeneratorfunction(function) else _plain
        setattr(store_class, method, wrap(function, operation))
    return store_class


def _plain(function: Callable[..., Any], operation: str) -> Callable[..., Any]:
    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with _timed(operation):
            return function(*args, **kwargs)

    return call


def _generator(function: Callable[..., Iterator[Any]], operation: str) -> Callable[..., Any]:
    """Without the time in which whoever takes the items does something with them."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Iterator[Any]:
        items = function(*args, **kwargs)
        seconds = 0.0
        try:
            while True:
                started_s = time.perf_counter()
                try:
                    with _counting_errors(operation):
                        item = next(items)
                except StopIteration:
                    return
                finally:
                    seconds += time.perf_counter() - started_s
                yield item
        finally:
            items.close()  # type: ignore[attr-defined]
            record("granulo_store_seconds", seconds, op=operation)

    return call


@contextmanager
def _timed(operation: str) -> Iterator[None]:
    started_s = time.perf_counter()
    try:
        with _counting_errors(operation):
            yield
    finally:
        record("granulo_store_seconds", time.perf_counter() - started_s, op=operation)


@contextmanager
def _counting_errors(operation: str) -> Iterator[None]:
    try:
        yield
    except GranuloError as error:
        if error.code not in _ANSWERS:
            record("granulo_store_errors_total", op=operation, code=error.code.name)
        raise
