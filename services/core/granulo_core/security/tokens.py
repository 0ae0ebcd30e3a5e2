# SPDX-License-Identifier: GPL-3.0-or-later
"""Static tokens: a file that knows their digests, not the tokens."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from granulo_core.errors import FieldViolation, invalid_fields
from granulo_core.security.access import TENANT, Identity, highest
from granulo_core.security.authentication import token_invalid
from granulo_core.security.watched import Watched

_FIELD = "auth_tokens_file"


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    """Of the token as it is sent, without a line's end."""
    subject: Annotated[str, Field(min_length=1, max_length=200)]
    roles: Annotated[list[Literal["read", "submit", "admin"]], Field(min_length=1)]
    tenant: Annotated[str, Field(pattern=f"^({TENANT.pattern})?$")] = ""


_ENTRIES = TypeAdapter(list[_Entry])


class StaticTokens:
    """Tokens of a YAML file: a list of ``{sha256, subject, roles, tenant}``.

    The digest of a presented token is looked up, so that neither the file nor the time that the
    answer takes tells a token. A changed file is read again at once.

    Parameters
    ----------
    path : str

    Raises
    ------
    GranuloError
        FIELD_INVALID for an unusable file.
    """

    def __init__(self, path: str) -> None:
        self._known = Watched([path], lambda: _read(path))

    def identify(self, token: str) -> Identity:
        """Return the owner of a token; raise TOKEN_INVALID where there is none."""
        found = self._known.get().get(hashlib.sha256(token.encode()).hexdigest())
        if found is None:
            raise token_invalid("is unknown to this server")
        return found


def _read(path: str) -> Mapping[str, Identity]:
    try:
        entries = _ENTRIES.validate_python(yaml.safe_load(Path(path).read_text()))
    except OSError as error:
        raise _invalid(path, f"cannot be read: {error.strerror}") from error
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, item['loc'])) or 'it'}: {item['msg']}"
            for item in error.errors(include_url=False, include_input=False)
        )
        raise _invalid(
            path, f"is no list of {{sha256, subject, roles, tenant}} ({faults})"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError):
        # Without the cause: it quotes the file.
        raise _invalid(path, "is no YAML") from None
    known = {
        entry.sha256: Identity(entry.subject, highest(entry.roles), entry.tenant)
        for entry in entries
    }
    if len(known) < len(entries):
        raise _invalid(path, "has one sha256 twice")
    return known


def _invalid(path: str, fault: str) -> Exception:
    return invalid_fields([FieldViolation(f"GRANULO_{_FIELD.upper()}", f"{path} {fault}.")])
