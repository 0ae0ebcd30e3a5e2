# SPDX-License-Identifier: GPL-3.0-or-later
"""Pages of lists (AIP-158)."""

import base64
import binascii
from collections.abc import Sequence
from typing import TypeVar

from granulo_core.errors import FieldViolation, invalid_fields

T = TypeVar("T")


def paginate(
    items: Sequence[T],
    page_size: int,
    page_token: str,
    *,
    default: int = 50,
    maximum: int = 1000,
) -> tuple[list[T], str]:
    """One page of ``items`` and the token of the next; the token is empty at the end.

    Parameters
    ----------
    items : sequence
        The whole list, in a stable order.
    page_size : int
        0 takes the default; more than ``maximum`` is cut to it.
    page_token : str
        From the page before; empty for the first.

    Raises
    ------
    GranuloError
        FIELD_INVALID for a negative size or a token that no page gave.
    """
    if page_size < 0:
        raise invalid_fields([FieldViolation("page_size", "must not be negative.")])
    start = _decode(page_token) if page_token else 0
    end = start + min(page_size or default, maximum)
    return list(items[start:end]), _encode(end) if end < len(items) else ""


def _encode(offset: int) -> str:
    return base64.urlsafe_b64encode(f"o{offset}".encode()).decode()


def _decode(token: str) -> int:
    try:
        text = base64.urlsafe_b64decode(token.encode()).decode()
        if text[:1] != "o":
            raise ValueError(text)
        return max(0, int(text[1:]))
    except (ValueError, binascii.Error):
        raise invalid_fields(
            [FieldViolation("page_token", "is not a token of this list; start without one.")]
        ) from None
