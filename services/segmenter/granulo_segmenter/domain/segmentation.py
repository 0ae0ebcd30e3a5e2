# SPDX-License-Identifier: GPL-3.0-or-later
"""From a micrograph to labels, given something that predicts tiles."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from granulo_core.imaging import classic, instances, scale
from granulo_core.imaging.normalise import to_network_input
from granulo_core.imaging.pixels import PixelSize
from granulo_core.imaging.read import Micrograph
from granulo_segmenter.domain.model import DISTANCE, FOREGROUND, MAX_TILE_PX, ModelFacts
from granulo_segmenter.domain.tiling import assemble, cut_tiles, plan_tiles

DEFAULT_OVERLAP_PX = 64

PredictTiles = Callable[
    [Iterable[NDArray[np.uint8]], Sequence[str]], Iterator[Mapping[str, NDArray[Any]]]
]
"""Takes tiles and the names of wanted outputs, yields each tile's outputs in order."""


class Method(StrEnum):
    """How instances are made from the network's outputs."""

    MODEL = "model"
    """Whatever the network was made for: by its distance, where it has one."""
    DISTANCE = "distance"
    """Marker watershed on the network's distance output."""
    PAPER = "paper"
    """M20 to M22."""


@dataclass(frozen=True)
class Options:
    """A user's choices; None takes the model's own value."""

    method: Method = Method.MODEL
    tile_px: int | None = None
    overlap_px: int | None = None
    foreground_threshold: float | None = None
    min_area_px: float | None = None
    dynamics: float | None = None
    """Normalised distance for the network's markers, pixels for the paper's recipe."""
    flips: bool = False
    """Average over the four mirror images."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "method": self.method.value}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Options":
        """Read what `to_json` gave."""
        return cls(**{**content, "method": Method(content["method"])})


@dataclass(frozen=True)
class Segmentation:
    """Particles of one image."""

    labels: NDArray[np.uint32]
    """(H, W) of the whole image; 0 is background and everything in a data bar."""
    particle_count: int


def check_options(options: Options, facts: ModelFacts) -> list[tuple[str, str]]:
    """Find what a model cannot do with the options.

    Returns
    -------
    list of (field, description)
        Fields as in the request's options; empty when all is well.
    """
    problems = []
    if options.method is Method.DISTANCE and not facts.has_distance:
        problems.append(
            ("method", "this model has no distance output; use METHOD_PAPER, or leave it unset")
        )
    tile_px = options.tile_px if options.tile_px is not None else facts.tile_px
    overlap_px = _overlap_px(options, facts)
    if not facts.stride <= tile_px <= MAX_TILE_PX:
        problems.append(("tile_px", f"must lie between {facts.stride} and {MAX_TILE_PX}"))
    elif overlap_px < 0:
        problems.append(("overlap_px", "must not be negative"))
    else:
        try:
            plan_tiles(64, 64, tile_px=tile_px, overlap_px=overlap_px, stride=facts.stride)
        except ValueError as error:
            problems.append(("tile_px", str(error)))
    threshold, dynamics = options.foreground_threshold, options.dynamics
    if threshold is not None and not 0 < threshold < 1:
        problems.append(("foreground_threshold", "must lie between 0 and 1"))
    if options.min_area_px is not None and not 0 <= options.min_area_px < 1e9:
        problems.append(("min_area_px", "must be a number of pixels, 0 or more"))
    highest = 1.0 if _uses_distance(options, facts) else 1e6
    if dynamics is not None and not 0 < dynamics < highest:
        problems.append(("dynamics", f"must lie between 0 and {highest:g} for this method"))
    return problems


def segment(
    micrograph: Micrograph,
    facts: ModelFacts,
    predict_tiles: PredictTiles,
    *,
    options: Options | None = None,
    pixel_size: PixelSize | None = None,
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

    Returns
    -------
    Segmentation
    """
    options = options or Options()
    content = to_network_input(micrograph.content, facts.convention)
    by_distance = _uses_distance(options, facts)
    names = (FOREGROUND, DISTANCE) if by_distance else (FOREGROUND,)
    maps = _predict(content, facts, predict_tiles, options, names)
    if by_distance:
        params = _instance_params(options, facts)
        found = instances.decode(maps[FOREGROUND], maps[DISTANCE], params, content)
        factor = scale.fitting_scale(found, facts.scale) if facts.scale else 1.0
        if factor != 1.0:
            # The particles are smaller or larger than the network likes: once more at its scale.
            again = scale.rescaled(content, factor)
            outputs = _predict(again, facts, predict_tiles, options, names)
            maps = {name: scale.restored(outputs[name], content.shape) for name in names}
            found = instances.decode(maps[FOREGROUND], maps[DISTANCE], params, content)
    else:
        size = pixel_size or micrograph.pixel_size
        found = classic.segment_probability(maps[FOREGROUND], size, _paper_params(options))
    labels = np.zeros(micrograph.pixels.shape, dtype=np.uint32)
    labels[: micrograph.content_height_px] = found
    return Segmentation(labels=labels, particle_count=int(found.max(initial=0)))


def _predict(
    image: NDArray[np.uint8],
    facts: ModelFacts,
    predict_tiles: PredictTiles,
    options: Options,
    names: Sequence[str],
) -> dict[str, NDArray[np.float32]]:
    plan = plan_tiles(
        *image.shape,
        tile_px=options.tile_px or facts.tile_px,
        overlap_px=_overlap_px(options, facts),
        stride=facts.stride,
    )
    # Mirroring a tile keeps its size, and so the network's grid.
    mirrors: list[tuple[slice, slice]] = [(slice(None), slice(None))]
    if options.flips:
        back, forth = slice(None, None, -1), slice(None)
        mirrors += [(back, forth), (forth, back), (back, back)]
    maps = {name: np.zeros(image.shape, dtype=np.float32) for name in names}
    for mirror in mirrors:
        tiles = (np.ascontiguousarray(tile[mirror]) for tile in cut_tiles(image, plan))
        outputs = (
            {name: output[name][mirror] for name in names} for output in predict_tiles(tiles, names)
        )
        for name, found in assemble(plan, outputs, names).items():
            maps[name] += found / len(mirrors)
    return maps


def _uses_distance(options: Options, facts: ModelFacts) -> bool:
    return facts.has_distance and options.method is not Method.PAPER


def _overlap_px(options: Options, facts: ModelFacts) -> int:
    if options.overlap_px is not None:
        return options.overlap_px
    tile_px = options.tile_px if options.tile_px is not None else facts.tile_px
    # A small tile still needs room for its own part.
    return min(DEFAULT_OVERLAP_PX, tile_px // 2)


def _instance_params(options: Options, facts: ModelFacts) -> instances.InstanceParams:
    params = facts.instances
    if options.foreground_threshold is not None:
        params = replace(params, foreground_threshold=options.foreground_threshold)
    if options.dynamics is not None:
        params = replace(params, marker_depth=options.dynamics)
    if options.min_area_px is not None:
        params = replace(params, min_area_px=round(options.min_area_px), min_area_fraction=0.0)
    return params


def _paper_params(options: Options) -> classic.PaperParams:
    params = replace(classic.SIO2, min_area_px=options.min_area_px, dynamic_px=options.dynamics)
    if options.foreground_threshold is not None:
        params = replace(params, threshold=options.foreground_threshold)
    return params
