# SPDX-License-Identifier: GPL-3.0-or-later
"""Logs: one place that configures them for servers, worker processes and third parties alike.

Modules log with ``structlog.get_logger(__name__)``: events are short texts, particulars keywords.
"""

import logging
import os
import sys
from typing import Any, Literal

import structlog

from granulo_core.settings import CoreSettings
from granulo_core.telemetry.traces import trace_id

# Worker processes know no settings; they take these from the environment that they inherit.
_FORMAT_VARIABLE = "GRANULO_LOG_FORMAT"
_LEVEL_VARIABLE = "GRANULO_LOG_LEVEL"

# Third parties that report every request, or news of no use to a user, at a level we show.
_CHATTY = ("absl", "asyncio", "grpc", "h5py", "matplotlib", "PIL", "tensorflow", "urllib3")


def configure_logging(settings: CoreSettings) -> None:
    """Send the logs of this process and of its later worker processes to standard error.

    Calling it again replaces the configuration. Standard output stays free for results, such as
    the address that the standalone announces.

    Parameters
    ----------
    settings : CoreSettings
        ``log_format`` and ``log_level`` are used.
    """
    as_json = settings.log_format == "json" or (
        settings.log_format == "auto" and not sys.stderr.isatty()
    )
    os.environ[_FORMAT_VARIABLE] = "json" if as_json else "plain"
    os.environ[_LEVEL_VARIABLE] = settings.log_level
    _configure(as_json, settings.log_level)


def configure_worker_logging() -> None:
    """Configure a worker process as `configure_logging` configured its parent."""
    _configure(
        os.environ.get(_FORMAT_VARIABLE, "plain") == "json",
        os.environ.get(_LEVEL_VARIABLE, "info"),
    )


def _configure(as_json: bool, level: str) -> None:
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        _add_trace_id,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_renderers("json" if as_json else "plain"),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


def _add_trace_id(_logger: Any, _method: str, event: Any) -> Any:
    if found := trace_id():
        event.setdefault("trace_id", found)
    return event


def _renderers(form: Literal["json", "plain"]) -> list[Any]:
    # Plain tracebacks: the rich ones print local variables, among them arrays and secrets.
    if form == "json":
        return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    return [
        structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    ]
