# SPDX-License-Identifier: GPL-3.0-or-later
"""Planes in files, for images that are larger than the memory they may take."""

import tempfile
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from granulo_core.imaging.read import OpenMicrograph
from granulo_segmenter.domain.planes import Window


class FilePlane:
    """A plane in a temporary file that has no name: it goes with the process, however that ends.

    Windows are copied, so that no page of the file stays in the process's memory.

    Parameters
    ----------
    shape : (height, width)
    dtype : numpy type
    """

    def __init__(self, shape: tuple[int, int], dtype: DTypeLike) -> None:
        self._shape = shape
        self._dtype = np.dtype(dtype)
        self._file = tempfile.TemporaryFile(prefix="granulo-")  # noqa: SIM115 (lives as long as we)
        self._file.truncate(max(1, shape[0] * shape[1] * self._dtype.itemsize))

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self._shape

    def read(self, window: Window) -> NDArray[Any]:
        """A copy of a window."""
        return np.array(self._map()[window.slices])

    def write(self, window: Window, values: NDArray[Any]) -> None:
        """Replace the numbers of a window."""
        self._map()[window.slices] = values

    def _map(self) -> NDArray[Any]:
        return np.memmap(self._file, self._dtype, "r+", shape=self._shape)


class MicrographPlane:
    """The upper rows of a micrograph that is read window by window; cannot be written.

    Parameters
    ----------
    micrograph : OpenMicrograph
    height : int
    """

    def __init__(self, micrograph: OpenMicrograph, height: int) -> None:
        self._micrograph = micrograph
        self._height = height

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self._height, self._micrograph.shape[1]

    def read(self, window: Window) -> NDArray[Any]:
        """Grey levels of a window."""
        return self._micrograph.read(*window.slices)

    def write(self, window: Window, values: NDArray[Any]) -> None:
        """Refuse."""
        raise TypeError("a micrograph is not written to")
