# SPDX-License-Identifier: Apache-2.0
"""The options for encryption and authentication, which every command with --server takes."""

import inspect
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from granulo_client.security import Security

_SERVER_VARIABLE = "GRANULO_SERVER"
_OPTIONS: Mapping[str, Any] = {
    "tls_ca": typer.Option(
        "--tls-ca",
        envvar="GRANULO_TLS_CA",
        metavar="FILE",
        help="Authority of the server's certificate (PEM): call it over TLS.",
    ),
    "client_cert": typer.Option(
        "--client-cert",
        envvar="GRANULO_TLS_CLIENT_CERT",
        metavar="FILE",
        help="Certificate to show (PEM), where the server asks for one.",
    ),
    "client_key": typer.Option(
        "--client-key",
        envvar="GRANULO_TLS_CLIENT_KEY",
        metavar="FILE",
        help="Its private key (PEM).",
    ),
    "token_file": typer.Option(
        "--token-file",
        envvar="GRANULO_AUTH_TOKEN_FILE",
        metavar="FILE",
        help="File with the token to send.",
    ),
}
_given: ContextVar[Mapping[str, Path | None]] = ContextVar("security_options")


class App(typer.Typer):
    """Adds the options to each of its commands that takes ``--server`` to connect to."""

    def command(self, *args: Any, **kwargs: Any) -> Callable[..., Any]:
        """As `typer.Typer.command`."""
        register = super().command(*args, **kwargs)

        def add(function: Callable[..., Any]) -> Callable[..., Any]:
            register(_with_options(function) if _is_caller(function) else function)
            return function

        return add


def given_security() -> Security:
    """What the present command was told.

    Raises
    ------
    UsageError
        It cannot be used.
    """
    return Security(**_given.get({}))


def _is_caller(function: Callable[..., Any]) -> bool:
    """Whether ``server`` is the common option; that of `granulo up` is only there to be refused."""
    parameter = inspect.signature(function).parameters.get("server")
    described = get_args(parameter.annotation) if parameter else ()
    return any(getattr(item, "envvar", None) == _SERVER_VARIABLE for item in described)


def _with_options(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def command(**arguments: Any) -> Any:
        _given.set({name: arguments.pop(name) for name in _OPTIONS})
        return function(**arguments)

    signature = inspect.signature(function)
    more = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[Path | None, option],
        )
        for name, option in _OPTIONS.items()
    ]
    command.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*signature.parameters.values(), *more]
    )
    command.__annotations__ = {
        **function.__annotations__,
        **{parameter.name: parameter.annotation for parameter in more},
    }
    return command
