# SPDX-License-Identifier: GPL-3.0-or-later
"""What a server says to probes: alive while it answers, ready while its dependencies answer."""

import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

import grpc
import structlog
from grpc_health.v1 import health, health_pb2

from granulo_core.errors import GranuloError, Reason
from granulo_core.rpc.channel import open_channel
from granulo_core.rpc.healthcheck import LIVENESS, READINESS
from granulo_core.security.settings import SecuritySettings

Check = Callable[[], object]
"""Returns where a dependency answers; raises `GranuloError` or `OSError` where it does not."""

_INTERVAL_S = 5.0
_ANSWER_S = 3.0
_log = structlog.get_logger(__name__)


class Readiness:
    """Keeps the health service's `READINESS` up to date, in a thread of its own.

    Probes are answered at once with what the last look found: a store that swallows packets must
    not make the probes of a healthy server time out. `LIVENESS` never looks at anything else than
    the server itself, because a restart mends no dependency.

    Parameters
    ----------
    servicer : HealthServicer
        Of the server.
    checks : mapping of str to callable
        By the dependency's name, for the log.
    interval_s : float
        Pause between looks.
    """

    def __init__(
        self,
        servicer: health.HealthServicer,
        checks: Mapping[str, Check],
        interval_s: float = _INTERVAL_S,
    ) -> None:
        self._health = servicer
        self._checks = checks
        self._interval_s = interval_s
        self._failing: dict[str, str] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="readiness", daemon=True)

    def start(self) -> None:
        """Say LIVENESS, and look from now on."""
        self._health.set(LIVENESS, health_pb2.HealthCheckResponse.SERVING)
        self._health.set(READINESS, health_pb2.HealthCheckResponse.NOT_SERVING)
        self._thread.start()

    def stop(self) -> None:
        """Look no more; what was said last stays."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def look(self) -> bool:
        """Look at every dependency once and set `READINESS` accordingly."""
        failing = {
            name: trouble for name, check in self._checks.items() if (trouble := _try(check))
        }
        for name in failing.keys() - self._failing.keys():
            _log.warning("not ready", dependency=name, trouble=failing[name])
        for name in self._failing.keys() - failing.keys():
            _log.info("ready again", dependency=name)
        self._failing = failing
        status = health_pb2.HealthCheckResponse
        self._health.set(READINESS, status.NOT_SERVING if failing else status.SERVING)
        return not failing

    def _watch(self) -> None:
        while True:
            self.look()
            if self._stop.wait(self._interval_s):
                return


def check_answers(target: str, security: SecuritySettings | None = None) -> None:
    """Raise MODEL_SERVER_UNAVAILABLE where nothing accepts gRPC calls at an address."""
    # To connect needs certificates, but no token.
    tokenless = security and security.model_copy(update={"auth_token_file": ""})
    with open_channel(target, tokenless) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=_ANSWER_S)
        except grpc.FutureTimeoutError:
            raise GranuloError(
                Reason.MODEL_SERVER_UNAVAILABLE, f"{target} does not answer."
            ) from None


def _try(check: Check) -> str:
    try:
        check()
    except (GranuloError, OSError) as error:
        return str(error) or type(error).__name__
    return ""
