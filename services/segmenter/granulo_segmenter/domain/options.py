# SPDX-License-Identifier: GPL-3.0-or-later
"""A user's choices, and what a model can do of them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from granulo_core.imaging import classic, instances
from granulo_segmenter.domain.model import MAX_TILE_PX, ModelFacts
from granulo_segmenter.domain.tiling import TilePlan, plan_tiles

DEFAULT_OVERLAP_PX = 64


class Method(StrEnum):
    """How instances are made from the network's outputs."""

    MODEL = "model"
    """Whatever the network was made for: by its distance, where it has one."""
    DISTANCE = "distance"
    """Marker watershed on the network's distance output."""
    PAPER = "paper"
    """M20 to M22."""


class Invert(StrEnum):
    """Whether particles are darker than the ground."""

    AUTO = "auto"
    """Found out for every image."""
    YES = "yes"
    NO = "no"


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
    invert: Invert = Invert.AUTO

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "method": self.method.value, "invert": self.invert.value}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Options":
        """Read what `to_json` gave."""
        return cls(
            **{
                **content,
                "method": Method(content["method"]),
                "invert": Invert(content["invert"]),
            }
        )


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
    overlap = overlap_px(options, facts)
    if not facts.stride <= tile_px <= MAX_TILE_PX:
        problems.append(("tile_px", f"must lie between {facts.stride} and {MAX_TILE_PX}"))
    elif overlap < 0:
        problems.append(("overlap_px", "must not be negative"))
    else:
        try:
            plan_tiles(64, 64, tile_px=tile_px, overlap_px=overlap, stride=facts.stride)
        except ValueError as error:
            problems.append(("tile_px", str(error)))
    threshold, dynamics = options.foreground_threshold, options.dynamics
    if threshold is not None and not 0 < threshold < 1:
        problems.append(("foreground_threshold", "must lie between 0 and 1"))
    if options.min_area_px is not None and not 0 <= options.min_area_px < 1e9:
        problems.append(("min_area_px", "must be a number of pixels, 0 or more"))
    highest = 1.0 if uses_distance(options, facts) else 1e6
    if dynamics is not None and not 0 < dynamics < highest:
        problems.append(("dynamics", f"must lie between 0 and {highest:g} for this method"))
    return problems


def tile_plan(shape: tuple[int, int], options: Options, facts: ModelFacts) -> TilePlan:
    """How an image of a shape is cut for the network."""
    return plan_tiles(
        *shape,
        tile_px=options.tile_px or facts.tile_px,
        overlap_px=overlap_px(options, facts),
        stride=facts.stride,
    )


def uses_distance(options: Options, facts: ModelFacts) -> bool:
    """Whether instances are divided by the network's distance."""
    return facts.has_distance and options.method is not Method.PAPER


def overlap_px(options: Options, facts: ModelFacts) -> int:
    """By how much tiles overlap."""
    if options.overlap_px is not None:
        return options.overlap_px
    tile_px = options.tile_px if options.tile_px is not None else facts.tile_px
    # A small tile still needs room for its own part.
    return min(DEFAULT_OVERLAP_PX, tile_px // 2)


def instance_params(options: Options, facts: ModelFacts) -> instances.InstanceParams:
    """Thresholds for instances by the network's distance."""
    params = facts.instances
    if options.foreground_threshold is not None:
        params = replace(params, foreground_threshold=options.foreground_threshold)
    if options.dynamics is not None:
        params = replace(params, marker_depth=options.dynamics)
    if options.min_area_px is not None:
        params = replace(params, min_area_px=round(options.min_area_px), min_area_fraction=0.0)
    return params


def paper_params(options: Options) -> classic.PaperParams:
    """Numbers for the paper's recipe."""
    params = replace(classic.SIO2, min_area_px=options.min_area_px, dynamic_px=options.dynamics)
    if options.foreground_threshold is not None:
        params = replace(params, threshold=options.foreground_threshold)
    return params
