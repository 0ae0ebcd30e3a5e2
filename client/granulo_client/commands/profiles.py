# SPDX-License-Identifier: Apache-2.0
"""The line of an intensity profile, as people type it."""

from granulo_client.errors import UsageError


def profile_ends(text: str) -> tuple[float, float, float, float]:
    """Ends of a line in pixels from ``X0,Y0,X1,Y1``; UsageError for anything else."""
    try:
        x0, y0, x1, y1 = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(
            f"--profile {text!r}: give four numbers X0,Y0,X1,Y1, e.g. 0,256,511,256."
        ) from None
    return x0, y0, x1, y1
