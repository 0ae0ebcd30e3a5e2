# SPDX-License-Identifier: GPL-3.0-or-later
"""Refusals that all readers share: what is wrong with a file and what to do about it."""

from collections.abc import Iterator
from contextlib import contextmanager

from granulo_core.errors import GranuloError, Reason

DEFAULT_MAX_PX = 16384 * 16384
"""Largest image that is decoded as a whole unless the caller says otherwise."""
MAX_STREAMED_PX = 2**36
"""Largest image of which regions are read: 262,144 × 262,144 pixels, beyond any instrument."""


def unreadable(name: str, problem: str) -> GranuloError:
    """Make the IMAGE_UNREADABLE error: ``name`` and what is wrong with it."""
    return GranuloError(Reason.IMAGE_UNREADABLE, f"{name} {problem}.", metadata={"image": name})


def damaged(name: str, kind: str, error: BaseException) -> GranuloError:
    """Make the error for what a decoder could not cope with."""
    detail = str(error).strip().splitlines()
    return unreadable(
        name,
        f"is a damaged or incomplete {kind} ({detail[0][:120] if detail else type(error).__name__})"
        "; copy it again from the microscope",
    )


@contextmanager
def decoding(name: str, kind: str) -> Iterator[None]:
    """Turn whatever a decoder raises into a refusal: damaged files make them fail in all ways."""
    try:
        yield
    except GranuloError:
        raise
    except Exception as error:
        raise damaged(name, kind, error) from error


def cut_off(name: str, needed_bytes: int, size_bytes: int) -> GranuloError:
    """Make the error for a file that ends before its image does."""
    return unreadable(
        name,
        f"is cut off: image data should reach byte {needed_bytes}, the file has {size_bytes}; copy "
        "it again from the microscope",
    )


def check_size(width_px: int, height_px: int, max_px: int, name: str) -> None:
    """Refuse an image that is empty, or larger than the limit, before it is decoded.

    Raises
    ------
    GranuloError
        IMAGE_UNREADABLE or IMAGE_TOO_LARGE.
    """
    if width_px < 1 or height_px < 1:
        raise unreadable(name, f"declares a size of {width_px} × {height_px} pixels")
    if width_px * height_px > max_px:
        raise too_large(width_px, height_px, max_px, name)


def too_large(width_px: int, height_px: int, max_px: int, name: str) -> GranuloError:
    """Make the IMAGE_TOO_LARGE error."""
    return GranuloError(
        Reason.IMAGE_TOO_LARGE,
        f"{name} has {width_px} × {height_px} = {width_px * height_px} pixels, more than the limit "
        f"of {max_px}; crop it or raise GRANULO_MAX_IMAGE_PX.",
        metadata={"image": name, "max_px": str(max_px)},
    )
