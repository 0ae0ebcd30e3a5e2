# SPDX-License-Identifier: GPL-3.0-or-later
"""From a micrograph to labels, given something that predicts tiles."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from granulo_core.imaging import classic, instances, scale
from granulo_core.imaging.confidence import CALIBRATIONS
from granulo_core.imaging.pixels import PixelSize
from granulo_core.imaging.read import Micrograph
from granulo_segmenter.domain import maps as tiles
from granulo_segmenter.domain import particles, prepare
from granulo_segmenter.domain.blocks import BLOCK_PX, HALO_PX, Found, stitch
from granulo_segmenter.domain.maps import Maps, PredictTiles
from granulo_segmenter.domain.model import DISTANCE, FOREGROUND, ModelFacts
from granulo_segmenter.domain.options import (
    Invert,
    Options,
    instance_params,
    paper_params,
    tile_plan,
    uses_distance,
)
from granulo_segmenter.domain.particles import Particles
from granulo_segmenter.domain.planes import ArrayPlane, MakePlane, Plane, Window, whole

SAMPLED_ABOVE_PX = 2**24
"""Of larger images only samples are looked at before all is predicted at the final scale."""
_SAMPLES_A_SIDE = 4
_SAMPLE_PX = 1024

OnProgress = Callable[[float, str], None]
"""Told the share that is done and what is being done."""


@dataclass(frozen=True)
class Segmentation:
    """Particles of one image in memory."""

    labels: NDArray[np.uint32]
    """(H, W) of the whole image; 0 is background and everything in a data bar."""
    particles: Particles
    inverted: bool
    """Whether the particles were taken to be darker than the ground."""
    maps: Maps
    """The network's outputs, of the content only."""

    @property
    def particle_count(self) -> int:
        """How many there are."""
        return len(self.particles)


@dataclass(frozen=True)
class Segmented:
    """Particles of one image wherever it lies."""

    labels: Plane
    """uint32, of the content only."""
    particles: Particles
    inverted: bool
    maps: Maps


@dataclass(frozen=True)
class Working:
    """How an image is worked through; results hardly depend on it."""

    make_plane: MakePlane = ArrayPlane.zeros
    """Where intermediate images lie."""
    block_px: int = BLOCK_PX
    halo_px: int = HALO_PX
    on_progress: OnProgress = lambda _share, _message: None


IN_MEMORY = Working()


def segment(
    micrograph: Micrograph,
    facts: ModelFacts,
    predict_tiles: PredictTiles,
    *,
    options: Options | None = None,
    pixel_size: PixelSize | None = None,
    working: Working = IN_MEMORY,
) -> Segmentation:
    """Segment one micrograph.

    Parameters
    ----------
    micrograph : Micrograph
        A data bar is left out of the prediction and of the grey-level statistics.
    facts : ModelFacts
    predict_tiles : callable
        See `PredictTiles`.
    options : Options, optional
        Checked by `check_options` before.
    pixel_size : PixelSize, optional
        Scales the paper's recipe; the file's own by default.
    working : Working

    Returns
    -------
    Segmentation
    """
    found = segment_plane(
        ArrayPlane(micrograph.content),
        facts,
        predict_tiles,
        options=options or Options(),
        pixel_size=pixel_size or micrograph.pixel_size,
        working=working,
    )
    labels = np.zeros(micrograph.pixels.shape, dtype=np.uint32)
    content = whole(found.labels.shape)
    labels[content.slices] = found.labels.read(content)
    return Segmentation(labels, found.particles, found.inverted, found.maps)


def segment_plane(
    content: Plane,
    facts: ModelFacts,
    predict_tiles: PredictTiles,
    *,
    options: Options,
    pixel_size: PixelSize | None,
    working: Working = IN_MEMORY,
) -> Segmented:
    """Segment an image that may be larger than memory; see `segment`.

    Grey levels are those of the whole image, thresholds that depend on other instances are applied
    after all were found, and every instance is found whole (`blocks.stitch`): what is found depends
    on the tiles and blocks only as far as the network looks beyond a tile's margin.
    """
    work = _Work(facts, predict_tiles, options, pixel_size, working)
    levels = prepare.grey_levels(content)
    inverted = options.invert is Invert.YES
    image = prepare.network_input(
        content, levels.range(facts.convention, inverted=inverted), facts.convention,
        working.make_plane,
    )  # fmt: skip
    return work.run(image, inverted)


@dataclass(frozen=True)
class _Work:
    """What all steps need."""

    facts: ModelFacts
    predict_tiles: PredictTiles
    options: Options
    pixel_size: PixelSize | None
    working: Working

    @property
    def by_distance(self) -> bool:
        return uses_distance(self.options, self.facts)

    def run(self, image: Plane, inverted: bool) -> Segmented:
        factor = self._sampled_scale(image)
        maps = self.predict(image, factor or Fraction(1))
        labels, found, keep = self.decode(image, maps)
        if factor is None:
            areas = found.area_px[keep]
            factor = self._scale(areas, image.shape)
            if factor != 1:
                # The particles are smaller or larger than the network likes: once more at its own.
                maps = self.predict(image, factor)
                labels, found, keep = self.decode(image, maps)
        calibration = CALIBRATIONS["distance" if self.by_distance else "foreground"]
        described = particles.describe(found, keep, labels, maps, calibration)
        particles.renumber(labels, keep)
        return Segmented(labels, described, inverted, maps)

    def predict(self, image: Plane, factor: Fraction) -> Maps:
        """The network's outputs at a scale."""
        names = (FOREGROUND, DISTANCE) if self.by_distance else (FOREGROUND,)
        seen = image
        if factor != 1:
            seen = tiles.rescaled(image, factor, self.working.make_plane)
        planes = tiles.predict(
            seen,
            tile_plan(seen.shape, self.options, self.facts),
            self.predict_tiles,
            names,
            self.working.make_plane,
            flips=self.options.flips,
            on_tile=lambda done, total: self.working.on_progress(
                0.8 * done / total, f"tile {done} of {total}"
            ),
        )
        return Maps(planes, image.shape, factor)

    def decode(self, image: Plane, maps: Maps) -> tuple[Plane, Found, NDArray[np.bool_]]:
        """Instances, and which of them are particles."""
        labels = self.working.make_plane(image.shape, np.uint32)
        find = self._finder(maps)
        found = stitch(
            find,
            labels,
            block_px=self.working.block_px,
            halo_px=self.working.halo_px,
            on_block=lambda done, total: self.working.on_progress(
                0.8 + 0.15 * done / total, f"block {done} of {total}"
            ),
        )
        keep = found.area_px > 0
        if self.by_distance:
            params = instance_params(self.options, self.facts)
            keep &= instances.is_no_scrap(
                found.area_px, params.min_area_px, params.min_area_fraction
            )
            if params.min_contrast_fraction > 0:
                keep &= ~particles.faint(found, keep, labels, image, params.min_contrast_fraction)
        return labels, found, keep

    def _finder(
        self, maps: Maps
    ) -> Callable[[Window], tuple[NDArray[np.int32], NDArray[np.int64]]]:
        if self.by_distance:
            params = instance_params(self.options, self.facts)
            return lambda window: instances.find(
                maps.read(FOREGROUND, window), maps.read(DISTANCE, window), params
            )
        recipe = paper_params(self.options)
        sizes = classic.sizes_px(self._mask(maps, recipe.threshold), self.pixel_size, recipe)
        return lambda window: classic.find(maps.read(FOREGROUND, window) > recipe.threshold, *sizes)

    def _mask(self, maps: Maps, threshold: float) -> NDArray[np.bool_]:
        """What the typical component is told from: the whole, or the samples beside one another."""
        parts = []
        for window in _samples(maps.shape):
            part = maps.read(FOREGROUND, window) > threshold
            parts += [part, np.zeros((part.shape[0], 1), dtype=bool)]
        return np.hstack(parts[:-1])

    def _sampled_scale(self, image: Plane) -> Fraction | None:
        """The scale of a large image by its samples; None where the whole image will tell."""
        if not self.by_distance or self.facts.scale is None:
            return Fraction(1)
        windows = list(_samples(image.shape))
        if len(windows) == 1:
            return None
        areas = []
        for window in windows:
            part = ArrayPlane(image.read(window))
            _, found, keep = self.decode(part, self.predict(part, Fraction(1)))
            areas.append(found.area_px[keep & ~_cut(found, part.shape)])
        return self._scale(np.concatenate(areas), image.shape)

    def _scale(self, areas_px: NDArray[np.int64], shape: tuple[int, int]) -> Fraction:
        if self.facts.scale is None:
            return Fraction(1)
        wanted = scale.fitting_areas(areas_px, shape[0] * shape[1], self.facts.scale)
        return tiles.fitting(wanted)


def _samples(shape: tuple[int, int]) -> Iterator[Window]:
    """The whole of an image, or windows spread evenly over a large one."""
    if shape[0] * shape[1] <= SAMPLED_ABOVE_PX:
        yield whole(shape)
        return
    sides = [-(-side // _SAMPLES_A_SIDE) for side in shape]
    for top in range(0, shape[0], sides[0]):
        for left in range(0, shape[1], sides[1]):
            height = min(_SAMPLE_PX, shape[0] - top, sides[0])
            width = min(_SAMPLE_PX, shape[1] - left, sides[1])
            top_px = top + (min(sides[0], shape[0] - top) - height) // 2
            left_px = left + (min(sides[1], shape[1] - left) - width) // 2
            yield Window(top_px, top_px + height, left_px, left_px + width)


def _cut(found: Found, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Instances that go on beyond a sample."""
    top, bottom, left, right = found.boxes.T
    return np.asarray((top == 0) | (left == 0) | (bottom == shape[0]) | (right == shape[1]))
