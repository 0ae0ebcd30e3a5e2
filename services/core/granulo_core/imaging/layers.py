# SPDX-License-Identifier: GPL-3.0-or-later
"""Geometry layers of a rendered scene: what the appearance model draws micrographs from."""

import io
import zipfile
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

_ZIP_TIME = (1980, 1, 1, 0, 0, 0)
NORMAL_SCALE = 127.0
"""What a unit normal is multiplied by in :attr:`Layers.normals`."""


@dataclass(frozen=True)
class Layers:
    """The geometry of one rendered scene, as the camera sees it."""

    occlusion: NDArray[np.uint8]
    """(H, W) ambient occlusion, 255 = open."""
    normals: NDArray[np.int8]
    """(H, W, 3) unit surface normal times 127: x to the right, y down, z towards the viewer."""
    height_nm: NDArray[np.float16]
    """(H, W) height above the substrate in nanometres."""
    instances: NDArray[np.uint16]
    """(H, W) visible instance ids, 0 is the substrate."""
    pixel_size_nm: float
    """Side of a pixel in nanometres."""
    contrast: NDArray[np.float16] | None = None
    """(H, W) brightness of the material relative to other materials; None is 1 everywhere."""
    shaded: NDArray[np.float16] | None = None
    """(H, W) noiseless signal as the renderer shaded it, at the levels of the default look: it
    takes the place of the model's rims, detector, thickness and gaps; levels, spread, material and
    textures of the look still apply. None leaves all to the model."""
    coverage: NDArray[np.uint8] | None = None
    """(H, W) share of the pixel that belongs to the instance at its centre, 255 = all. None leaves
    it to be guessed from the ids."""

    def __post_init__(self) -> None:
        """Refuse layers of differing sizes: they cannot belong to one scene."""
        shape = self.instances.shape
        optional = (self.contrast, self.shaded, self.coverage)
        extras = [layer for layer in optional if layer is not None]
        if (
            len(shape) != 2
            or self.occlusion.shape != shape
            or self.height_nm.shape != shape
            or self.normals.shape != (*shape, 3)
            or any(layer.shape != shape for layer in extras)
        ):
            raise ValueError(
                f"layers differ in size: occlusion {self.occlusion.shape}, normals "
                f"{self.normals.shape}, height {self.height_nm.shape}, instances {shape}"
                + "".join(f", {layer.shape}" for layer in extras)
            )

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        height, width = self.instances.shape
        return height, width

    def crop(self, top: int, left: int, height: int, width: int) -> "Layers":
        """A view of a part of the scene; bounds are clipped like a numpy slice."""
        part = np.s_[top : top + height, left : left + width]
        return replace(
            self,
            occlusion=self.occlusion[part],
            normals=self.normals[part],
            height_nm=self.height_nm[part],
            instances=self.instances[part],
            contrast=None if self.contrast is None else self.contrast[part],
            shaded=None if self.shaded is None else self.shaded[part],
            coverage=None if self.coverage is None else self.coverage[part],
        )

    def save(self) -> bytes:
        """Compressed npz bytes, identical for identical layers; absent layers are left out."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for item in fields(self):
                value = getattr(self, item.name)
                if value is None:
                    continue
                content = io.BytesIO()
                array = np.asarray(value, order="C")
                np.lib.format.write_array(content, array, allow_pickle=False)
                # The time stamp is fixed, because it would break byte identity.
                entry = zipfile.ZipInfo(f"{item.name}.npy", _ZIP_TIME)
                archive.writestr(entry, content.getvalue(), zipfile.ZIP_DEFLATED, 4)
        return buffer.getvalue()

    @classmethod
    def load(cls, data: bytes) -> "Layers":
        """Read what :meth:`save` wrote.

        Raises
        ------
        ValueError
            When the bytes are not a complete set of layers.
        """
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as archive:
                return cls(
                    occlusion=archive["occlusion"].astype(np.uint8, copy=False),
                    normals=archive["normals"].astype(np.int8, copy=False),
                    height_nm=archive["height_nm"].astype(np.float16, copy=False),
                    instances=archive["instances"].astype(np.uint16, copy=False),
                    pixel_size_nm=float(archive["pixel_size_nm"]),
                    contrast=_optional(archive, "contrast", np.float16),
                    shaded=_optional(archive, "shaded", np.float16),
                    coverage=_optional(archive, "coverage", np.uint8),
                )
        except (KeyError, OSError, zipfile.BadZipFile) as error:
            raise ValueError(f"not the layers of a rendered scene: {error}") from error


def _optional(archive: Any, name: str, dtype: type[np.generic]) -> Any:
    return archive[name].astype(dtype, copy=False) if name in archive else None
