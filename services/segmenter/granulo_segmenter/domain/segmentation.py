# SPDX-License-Identifier: GPL-3.0-or-later
"""From a micrograph to labels, given something that predicts tiles."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from granulo_core.imaging import classic, instances, scale
from granulo_core.imaging.confidence import CALIBRATIONS
from granulo_core.imaging.consistency import Consistency
from granulo_core.imaging.consistency import together as all_of
from granulo_core.imaging.normalise import GreyLevels
from granulo_core.imaging.pixels import PixelSize
from granulo_core.imaging.read import Micrograph
from granulo_segmenter.domain import maps as tiles
from granulo_segmenter.domain import prepare, sampling
from granulo_segmenter.domain.blocks import BLOCK_PX, HALO_PX, Found, stitch
from granulo_segmenter.domain.ink import Ink, PaintedOver, find_ink
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
from granulo_segmenter.domain.particles import Particles, describe, faint, lettered, renumber
from granulo_segmenter.domain.planes import (
    ArrayPlane,
    MakePlane,
    Plane,
    Window,
    blocks,
    whole,
)
from granulo_segmenter.domain.polarity import Belief, is_inverted, together

_MOST_PARTS = 4

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
    ink = find_ink(content)
    if ink:
        content = PaintedOver(content, ink)
    work = _Work(content, ink, facts, predict_tiles, options, pixel_size, working)
    return work.run(prepare.grey_levels(content))


@dataclass(frozen=True, eq=False)
class _Look:
    """What was found in an image, or in a part of it."""

    window: Window
    """Where the part lies."""
    maps: Maps
    labels: Plane
    found: Found
    keep: NDArray[np.bool_]
    """Which instances are particles."""
    particles: Particles
    belief: Belief
    is_whole: bool
    """Whether it is the whole image, which cuts no particle that could be known better."""

    @property
    def known_px(self) -> NDArray[np.int64]:
        """Areas of the particles whose size is known: not of those that a sample cuts."""
        top, bottom, left, right = self.found.boxes.T
        height, width = self.labels.shape
        cut = (top == 0) | (left == 0) | (bottom == height) | (right == width)
        areas: NDArray[np.int64] = self.found.area_px[self.keep & (self.is_whole | ~cut)]
        return areas


@dataclass(frozen=True)
class _Work:
    """What all steps need."""

    content: Plane
    """Without the ink."""
    ink: Sequence[Ink]
    facts: ModelFacts
    predict_tiles: PredictTiles
    options: Options
    pixel_size: PixelSize | None
    working: Working

    @property
    def by_distance(self) -> bool:
        return uses_distance(self.options, self.facts)

    def run(self, levels: GreyLevels) -> Segmented:
        inverted = self.options.invert is Invert.YES
        image = self._input(self.content, levels, inverted=inverted)
        looks = self._first_looks(image)
        if self.options.invert is Invert.AUTO and self._is_inverted(levels, image, looks):
            inverted = True
            image = self._input(self.content, levels, inverted=True)
            looks = self._first_looks(image)
        seen = {look.maps.scale: look for look in looks if look.is_whole}
        factor, other = self._scales(looks, image, seen)
        everywhere = whole(image.shape)
        look = seen.get(factor) or self.look(everywhere, image, factor)
        if other is not None:
            beside = seen[other].maps if other in seen else self._predict(image, other)
            look = self._decode(everywhere, image, replace(look.maps, beside=beside))
        renumber(look.labels, look.keep)
        return Segmented(look.labels, look.particles, inverted, look.maps)

    def look(self, window: Window, image: Plane, factor: Fraction = Fraction(1)) -> _Look:
        """Predict the window's image at a scale, and find the particles."""
        return self._decode(window, image, self._predict(image, factor))

    def _input(self, content: Plane, levels: GreyLevels, *, inverted: bool) -> Plane:
        convention = self.facts.convention
        grey_range = levels.range(convention, inverted=inverted)
        return prepare.network_input(content, grey_range, convention, self.working.make_plane)

    def _first_looks(self, image: Plane) -> list[_Look]:
        """The whole image at its own scale, or samples of a large one, where these are needed."""
        windows = sampling.samples(image.shape)
        if windows == [whole(image.shape)]:
            return [self.look(windows[0], image)]
        if not self.rescales and self.options.invert is not Invert.AUTO:
            return []
        return [self.look(window, ArrayPlane(image.read(window))) for window in windows]

    @property
    def rescales(self) -> bool:
        """Whether the network likes particles of some size best."""
        return self.by_distance and self.facts.scale is not None

    def _is_inverted(self, levels: GreyLevels, image: Plane, looks: Sequence[_Look]) -> bool:
        if together(look.belief for look in looks).is_clear:
            return False
        as_it_is, negative = [], []
        # A few parts of a large image tell.
        for look in looks[:: max(1, len(looks) // 3)]:
            for part in sampling.looks(look.window.shape):
                window = part.shifted(look.window.top, look.window.left)
                maps = Maps(
                    {
                        name: ArrayPlane(plane.read(part))
                        for name, plane in look.maps.planes.items()
                    },
                    part.shape,
                )
                seen = ArrayPlane(image.read(window))
                as_it_is.append(self._decode(window, seen, maps).belief)
                grey = ArrayPlane(self.content.read(window))
                other = self._input(grey, levels, inverted=True)
                negative.append(self.look(window, other).belief)
        return is_inverted(together(as_it_is), together(negative))

    def _predict(self, image: Plane, factor: Fraction) -> Maps:
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

    def _decode(self, window: Window, image: Plane, maps: Maps) -> _Look:
        labels = self.working.make_plane(image.shape, np.uint32)
        found = stitch(
            self._finder(maps, window),
            labels,
            block_px=self.working.block_px,
            halo_px=self.working.halo_px,
            on_block=lambda done, total: self.working.on_progress(
                0.8 + 0.15 * done / total, f"block {done} of {total}"
            ),
        )
        keep = found.area_px > 0
        threshold = paper_params(self.options).threshold
        if self.by_distance:
            params = instance_params(self.options, self.facts)
            threshold = params.foreground_threshold
            keep &= instances.is_no_scrap(
                found.area_px, params.min_area_px, params.min_area_fraction
            )
            if params.min_contrast_fraction > 0:
                keep &= ~faint(found, keep, labels, image, params.min_contrast_fraction)
        keep &= ~lettered(found, labels, self.ink, window)
        calibration = CALIBRATIONS["distance" if self.by_distance else "foreground"]
        described = describe(found, keep, labels, maps, calibration)
        believed_px = float(described.confidence @ described.area_px)
        belief = Belief(believed_px, _foreground_px(maps, threshold))
        is_whole = window == whole(self.content.shape)
        return _Look(window, maps, labels, found, keep, described, belief, is_whole)

    def _finder(
        self, maps: Maps, seen: Window
    ) -> Callable[[Window], tuple[NDArray[np.int32], NDArray[np.int64]]]:
        hidden = [part for one in self.ink if one.hides and (part := one.cropped(seen))]

        def foreground(window: Window) -> NDArray[np.float32]:
            values: NDArray[np.float32] = maps.read(FOREGROUND, window)
            for one in hidden:
                part = one.cropped(window.shifted(seen.top, seen.left))
                if part:
                    values = values.copy()
                    place = part.window.shifted(-seen.top, -seen.left).within(window)
                    values[place.slices][part.mask] = 0
            return values

        if self.by_distance:
            params = instance_params(self.options, self.facts)
            return lambda window: instances.find(
                foreground(window), maps.read(DISTANCE, window), params
            )
        recipe = paper_params(self.options)
        sizes = classic.sizes_px(_typical_mask(maps, recipe.threshold), self.pixel_size, recipe)
        return lambda window: classic.find(foreground(window) > recipe.threshold, *sizes)

    def _scales(
        self, looks: Sequence[_Look], image: Plane, seen: dict[Fraction, _Look]
    ) -> tuple[Fraction, Fraction | None]:
        """The scale at which the network agrees best with itself, in a few parts of the image.

        With it that whose outputs are averaged with its own, if any. Looks at the whole of the
        image are added to ``seen``.
        """
        if not self.rescales or self.facts.scale is None or not looks:
            return Fraction(1), None
        parts = [(look, window) for look in looks for window in sampling.parts(look.window.shape)]
        parts = parts[:: -(-len(parts) // _MOST_PARTS)]

        diameter_px = {Fraction(1): _typical_diameter_px(looks)}

        def consistency_at(factor: Fraction) -> Consistency:
            found, again = [], []
            for look, window in parts:
                place = window.shifted(look.window.top, look.window.left)
                again.append(self.look(place, ArrayPlane(image.read(place)), factor))
                if again[-1].is_whole:
                    seen[factor] = again[-1]
                found.append(self._consistency(again[-1], whole(window.shape)))
            diameter_px[factor] = _typical_diameter_px(again)
            return all_of(found)

        factor = scale.fitting_scale(
            all_of(self._consistency(look, window) for look, window in parts),
            consistency_at,
            diameter_px.__getitem__,
            image.shape[0] * image.shape[1],
            self.facts.scale,
        )
        return factor, scale.beside(factor, diameter_px[factor], self.facts.scale)

    def _consistency(self, look: _Look, window: Window) -> Consistency:
        labels = np.append(False, look.keep)[(numbers := look.labels.read(window))] * numbers
        outputs = np.dstack([look.maps.read(name, window) for name in (FOREGROUND, DISTANCE)])
        threshold = instance_params(self.options, self.facts).foreground_threshold
        return scale.consistency_at_scale(labels, outputs, float(look.maps.scale), threshold)


def _typical_diameter_px(looks: Sequence[_Look]) -> float:
    return scale.typical_diameter_px(np.concatenate([look.known_px for look in looks]))


def _foreground_px(maps: Maps, threshold: float) -> int:
    return sum(
        int(np.count_nonzero(maps.read(FOREGROUND, block) > threshold))
        for block in blocks(maps.shape, BLOCK_PX)
    )


def _typical_mask(maps: Maps, threshold: float) -> NDArray[np.bool_]:
    """What the typical component is told from: the whole, or the samples beside one another."""
    parts = []
    for window in sampling.samples(maps.shape):
        part = maps.read(FOREGROUND, window) > threshold
        parts += [part, np.zeros((part.shape[0], 1), dtype=bool)]
    height = max(part.shape[0] for part in parts)
    return np.hstack([np.pad(part, ((0, height - part.shape[0]), (0, 0))) for part in parts[:-1]])
