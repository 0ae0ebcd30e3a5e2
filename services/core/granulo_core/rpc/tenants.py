# SPDX-License-Identifier: GPL-3.0-or-later
"""The services of tenants: built over a tenant's store when its first call comes."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import structlog

from granulo_core.operations.runner import OperationRunner

_log = structlog.get_logger(__name__)
_WITHOUT_STORE = ("/grpc.health.v1.", "/grpc.reflection.")


class HandlerTable:
    """Takes servicers as a `grpc.Server` does, to look their handlers up."""

    def __init__(self) -> None:
        self._handlers: list[grpc.GenericRpcHandler] = []

    def add_generic_rpc_handlers(
        self, generic_rpc_handlers: Sequence[grpc.GenericRpcHandler]
    ) -> None:
        """As `grpc.Server`."""
        self._handlers.extend(generic_rpc_handlers)

    def add_registered_method_handlers(
        self, service_name: str, method_handlers: dict[str, Any]
    ) -> None:
        """As `grpc.Server`: the same handlers once more, for its quicker look-up."""

    def find(self, method: str) -> Any:
        """The handler of a method's full name; None where there is none."""
        details = _Details(method)
        found = (handler.service(details) for handler in self._handlers)
        return next((handler for handler in found if handler is not None), None)


@dataclass(frozen=True)
class Offer:
    """What a server answers with over one store."""

    handlers: HandlerTable
    runners: Sequence[OperationRunner]


class Tenants:
    """Offers by tenant.

    Parameters
    ----------
    make : callable
        Builds a tenant's offer.
    """

    def __init__(self, make: Callable[[str], Offer]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._offers: dict[str, Offer] = {}

    @property
    def runners(self) -> list[OperationRunner]:
        """Of all tenants that were seen."""
        with self._lock:
            return [runner for offer in self._offers.values() for runner in offer.runners]

    def handler(self, tenant: str, method: str, roots: Any) -> Any:
        """The handler of a method over a tenant's store.

        Parameters
        ----------
        tenant : str
        method : str
            Full name.
        roots : RpcMethodHandler
            The root's, which answers for services without a store.
        """
        if method.startswith(_WITHOUT_STORE):
            return roots
        found = self.of(tenant).handlers.find(method)
        if found is None:  # never the root's instead
            raise LookupError(f"{method} is not offered to tenants")
        return found

    def of(self, tenant: str) -> Offer:
        """A tenant's offer; its operations that an earlier server began go on."""
        if (known := self._offers.get(tenant)) is not None:
            return known  # no call waits for the opening of another tenant
        with self._lock:
            if tenant not in self._offers:
                _log.info("tenant opened", tenant=tenant)
                offer = self._make(tenant)
                self._offers[tenant] = offer
                for runner in offer.runners:
                    runner.resume_all()
            return self._offers[tenant]


@dataclass(frozen=True)
class _Details(grpc.HandlerCallDetails):
    method: str
    invocation_metadata: Any = ()
