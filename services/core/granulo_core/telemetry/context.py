# SPDX-License-Identifier: GPL-3.0-or-later
"""What every log line and span of one piece of work has in common, and how it is carried on.

A call's thread, an operation's thread and a worker process log with the same request id, operation,
caller and trace.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from structlog.contextvars import bound_contextvars, get_contextvars

from granulo_core.telemetry import traces

FIELDS = ("request_id", "subject", "tenant", "operation")
"""Fields of log lines that go along; nothing else of a call does, so no secret can."""


def carried() -> dict[str, str]:
    """The present context as plain text, for a record or another process."""
    fields = get_contextvars()
    found = {name: str(fields[name]) for name in FIELDS if fields.get(name)}
    traces.inject(found)
    return found


@contextmanager
def taken_up(carried: Mapping[str, str], **fields: str) -> Iterator[None]:
    """Go on in a context that `carried` gave, with more fields for the log.

    Parameters
    ----------
    carried : mapping of str to str
    **fields : str
        Empty ones are left out.
    """
    known = {name: carried[name] for name in FIELDS if carried.get(name)}
    known |= {name: value for name, value in fields.items() if value}
    with traces.below(carried), bound_contextvars(**known):
        yield
