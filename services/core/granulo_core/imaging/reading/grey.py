# SPDX-License-Identifier: GPL-3.0-or-later
"""Stored samples as grey levels, pixel by pixel: a window gives what the whole image gives."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from granulo_core.imaging.reading.plane import PlaneInfo
from granulo_core.imaging.reading.problems import unreadable

_LUMINANCE = tuple(np.float32(share) for share in (0.299, 0.587, 0.114))
"""Of red, green and blue: ITU-R BT.601."""


def grey_type(info: PlaneInfo, name: str) -> np.dtype[Any]:
    """Type of the grey levels of a page: uint8, uint16 or float32.

    Raises
    ------
    GranuloError
        IMAGE_UNREADABLE for samples that are no grey levels.
    """
    stored = info.dtype
    if stored.kind == "c":
        raise unreadable(
            name, "holds complex numbers: a diffraction or Fourier pattern, not a micrograph"
        )
    if stored.kind not in "uifb":
        raise unreadable(name, f"holds {stored} samples; export grey levels")
    if info.palette is not None or stored.kind == "b":
        return np.dtype(np.uint8)
    if stored.kind == "u" and stored.itemsize <= 2:
        return stored.newbyteorder("=")
    return np.dtype(np.float32)


def to_grey(samples: NDArray[Any], info: PlaneInfo, name: str) -> NDArray[Any]:
    """Grey levels of a window.

    8-bit and 16-bit levels are kept, other numbers become float32, colours are reduced to their
    luminance. What is not finite stays so.

    Parameters
    ----------
    samples : (h, w) or (h, w, channels)
    info : PlaneInfo
    name : str

    Returns
    -------
    (h, w) array of the type that `grey_type` tells
    """
    target = grey_type(info, name)
    if info.palette is not None:
        samples = _look_up(samples, info.palette, name)
    elif samples.dtype.kind == "b":
        samples = samples.astype(np.uint8) * np.uint8(255)
    if info.white_is_zero and samples.dtype.kind == "u":
        samples = _full_scale(samples.dtype, info.bits) - samples
    if samples.ndim == 3:
        samples = _luminance(samples, target)
    with np.errstate(over="ignore", invalid="ignore"):
        return samples.astype(target, copy=False)


def _full_scale(dtype: np.dtype[Any], bits: int) -> Any:
    whole = 8 * dtype.itemsize
    if dtype.kind == "u" and 1 < bits < whole:
        return dtype.type((1 << bits) - 1)
    return np.iinfo(dtype).max


def _look_up(indices: NDArray[Any], palette: NDArray[np.uint16], name: str) -> NDArray[Any]:
    if indices.ndim == 3:
        indices = indices[..., 0]
    if indices.size and int(indices.max()) >= len(palette):
        raise unreadable(name, "uses colours that its palette does not have")
    # Writers expand 8-bit colours to 16 bits by 256 or by 257; the high byte is the same.
    colours: NDArray[Any] = (palette >> 8).astype(np.uint8)[indices]
    return colours


def _luminance(samples: NDArray[Any], target: np.dtype[Any]) -> NDArray[Any]:
    red: NDArray[Any] = samples[..., 0]
    if samples.shape[2] <= 2:
        return red
    same = (red == samples[..., 1]) & (red == samples[..., 2])
    if same.all():
        return red
    # Sums of a matrix product would be rounded differently in regions of different shapes.
    grey = np.zeros(red.shape, np.float32)
    for channel, share in enumerate(_LUMINANCE):
        grey += samples[..., channel].astype(np.float32) * share
    if target.kind == "u":
        # Rounding keeps a grey pixel's own level.
        return np.asarray(np.rint(grey), dtype=target)
    return np.where(same, red, grey)
