# SPDX-License-Identifier: GPL-3.0-or-later
"""Geometry of a training patch: a random place, rotation, size and mirror image of a scene."""

from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from granulo_core.imaging.appearance import Layers, ModalityName

MIN_DIAMETER_PX = 14.0
MAX_DIAMETER_PX = 100.0
SCALE_LIMITS = (0.3, 1.7)
_CROWDED_SHARE = 0.85
"""How often a patch is centred on a particle rather than anywhere."""


@dataclass(frozen=True)
class Scene:
    """One rendered scene or annotated image, with layers or as an image with labels."""

    instances: NDArray[np.uint16]
    """(H, W) visible instance ids, 0 is background."""
    layers: Layers | None
    """Geometry from which any look can be drawn; None for plain images."""
    image: NDArray[np.uint8] | None
    """(H, W) the delivered micrograph, or a real one."""
    mask: NDArray[np.uint8] | None
    """(H, W) the eroded binary mask (M10)."""
    median_diameter_px: float
    """Median equivalent-circle diameter of the visible particles; 0 in an empty scene."""
    prepared: bool = False
    """Whether ``image`` went through the input convention already, as a whole."""
    modality: ModalityName = "any"
    """Kind of microscope that looks are drawn of over the layers."""

    def __post_init__(self) -> None:
        """Refuse parts of differing size."""
        for part in (self.image, self.mask):
            if part is not None and part.shape != self.instances.shape:
                raise ValueError(
                    f"a scene's parts differ in size: {part.shape} and {self.instances.shape}"
                )
        if self.layers is None and self.image is None:
            raise ValueError("a scene needs layers or an image")


def median_diameter_px(instances: NDArray[np.uint16]) -> float:
    """Median equivalent-circle diameter of the instances in pixels; 0 without any."""
    areas = np.bincount(instances.ravel())[1:]
    areas = areas[areas > 0]
    return float(2.0 * np.sqrt(np.median(areas) / np.pi)) if areas.size else 0.0


@dataclass(frozen=True)
class View:
    """A linear map from scene pixels to patch pixels."""

    matrix: NDArray[np.float64]
    """(2, 3) affine matrix, scene (x, y, 1) to patch (x, y)."""
    patch_px: int
    scale: float

    def normals(self, normals: NDArray[np.int8]) -> NDArray[np.int8]:
        """(H, W, 3) normals in the patch, turned and mirrored with it."""
        warped = self._smooth(normals.astype(np.float32))
        turn = np.eye(3, dtype=np.float32)
        turn[:2, :2] = self.matrix[:, :2] / self.scale
        turned = cv2.transform(warped, turn)
        length = np.sqrt(np.einsum("ijk,ijk->ij", turned, turned))
        turned *= (np.float32(127.0) / np.maximum(length, np.float32(1e-3)))[..., None]
        unit: NDArray[np.int8] = np.rint(turned, out=turned).astype(np.int8)
        return unit

    def smooth(self, values: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(H, W) grey values in the patch, interpolated."""
        # Interpolated between 0 and 255, so that nothing lies outside; OpenCV rounds bytes itself.
        return self._smooth(values)

    def half(self, values: NDArray[np.float16]) -> NDArray[np.float16]:
        """(H, W) lengths or relative levels in the patch, interpolated."""
        return self._smooth(values.astype(np.float32)).astype(np.float16)

    def nearest(self, values: NDArray[np.uint16]) -> NDArray[np.uint16]:
        """(H, W) ids or masks in the patch, never mixed."""
        warped: NDArray[np.uint16] = cv2.warpAffine(
            values,
            self.matrix,
            (self.patch_px, self.patch_px),
            flags=cv2.INTER_NEAREST,
            borderMode=cv2.BORDER_REFLECT,
        )
        return warped

    def inside(self, shape: tuple[int, ...]) -> NDArray[np.bool_]:
        """(H, W) where the patch shows the scene, and not its mirror image beyond the frame."""
        warped = cv2.warpAffine(
            np.ones(shape, np.uint8),
            self.matrix,
            (self.patch_px, self.patch_px),
            flags=cv2.INTER_NEAREST,
            borderMode=cv2.BORDER_CONSTANT,
        )
        return np.asarray(warped, dtype=np.bool_)

    def layers(self, layers: Layers) -> Layers:
        """The patch's own layers; the scene's coverage of pixels says nothing of the patch's."""
        return Layers(
            occlusion=self.smooth(layers.occlusion),
            normals=self.normals(layers.normals),
            height_nm=self.half(layers.height_nm),
            instances=self.nearest(layers.instances),
            pixel_size_nm=layers.pixel_size_nm / self.scale,
            contrast=None if layers.contrast is None else self.half(layers.contrast),
            shaded=None if layers.shaded is None else self.half(layers.shaded),
        )

    def _smooth(self, values: NDArray[Any]) -> NDArray[Any]:
        """Interpolated values of the same type, uint8 or float32."""
        if self.scale < 0.6:
            # Little enough blur that edges stay sharp, enough that fine detail does not alias.
            values = cv2.GaussianBlur(values, (0, 0), 0.35 / self.scale)
        warped: NDArray[Any] = cv2.warpAffine(
            values,
            self.matrix,
            (self.patch_px, self.patch_px),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REFLECT,
        )
        return warped


def random_view(scene: Scene, patch_px: int, rng: np.random.Generator) -> tuple[Scene, View]:
    """Choose a patch of a scene whose particles are 14 to 100 px in diameter.

    Parameters
    ----------
    scene : Scene
    patch_px : int
        Side of the patch.
    rng : numpy.random.Generator

    Returns
    -------
    part : Scene
        The part of the scene that the view covers.
    view : View
        Maps that part to the patch.
    """
    height, width = scene.instances.shape
    scale = _random_scale(scene, rng)
    angle = rng.uniform(0.0, 2.0 * np.pi)
    mirror = -1.0 if rng.random() < 0.5 else 1.0
    reach = patch_px / scale
    centre = _random_centre(scene, reach, rng)

    # Work on the part around the patch only: a rotated square needs 1.42 times its side.
    half = int(np.ceil(reach * 0.75)) + 4
    top, left = max(0, int(centre[1]) - half), max(0, int(centre[0]) - half)
    bottom, right = min(height, int(centre[1]) + half), min(width, int(centre[0]) + half)
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    linear = np.array([[cosine, -sine], [sine, cosine]]) @ np.diag([mirror, 1.0])
    origin = np.array([centre[0] - left, centre[1] - top])
    offset = patch_px / 2.0 - linear @ origin
    part = _cut(scene, slice(top, bottom), slice(left, right))
    return part, View(np.column_stack([linear, offset]), patch_px, scale)


def _random_scale(scene: Scene, rng: np.random.Generator) -> float:
    diameter = np.exp(rng.uniform(np.log(MIN_DIAMETER_PX), np.log(MAX_DIAMETER_PX)))
    if scene.median_diameter_px <= 0:
        return 1.0
    return float(np.clip(diameter / scene.median_diameter_px, *SCALE_LIMITS))


def _random_centre(scene: Scene, reach: float, rng: np.random.Generator) -> NDArray[np.float64]:
    height, width = scene.instances.shape
    centre = rng.uniform((0.0, 0.0), (width, height))
    if rng.random() < _CROWDED_SHARE:
        rows, columns = np.nonzero(scene.instances[::8, ::8])
        if rows.size:
            chosen = int(rng.integers(rows.size))
            jitter = rng.uniform(-0.4, 0.4, 2) * reach
            centre = np.array([columns[chosen], rows[chosen]]) * 8.0 + jitter
    # Keep most of the patch inside the scene; what is outside is mirrored.
    margin = min(reach / 2.0, width / 2.0, height / 2.0)
    return np.clip(centre, margin, np.array([width, height]) - margin)


def _cut(scene: Scene, rows: slice, columns: slice) -> Scene:
    layers = scene.layers
    return replace(
        scene,
        instances=scene.instances[rows, columns],
        layers=None
        if layers is None
        else layers.crop(
            rows.start, columns.start, rows.stop - rows.start, columns.stop - columns.start
        ),
        image=None if scene.image is None else scene.image[rows, columns],
        mask=None if scene.mask is None else scene.mask[rows, columns],
    )
