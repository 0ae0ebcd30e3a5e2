# SPDX-License-Identifier: GPL-3.0-or-later
"""What is known of the particles of one label image; each part is made when it is first needed."""

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from granulo_analyzer.domain.morphology.agglomerates import (
    Agglomerates,
    agglomerates_of,
    fractal_dimensions,
)
from granulo_analyzer.domain.morphology.circles import (
    circumscribed_diameters,
    depth_of,
    inscribed_diameters,
)
from granulo_analyzer.domain.morphology.edges import edge_sharpness
from granulo_analyzer.domain.morphology.fibres import (
    STRAIGHT_SOLIDITY,
    fibre_widths,
    geodesic_lengths,
)
from granulo_analyzer.domain.morphology.hulls import (
    Calipers,
    Hulls,
    hull_pixels,
    outline_hulls,
)
from granulo_analyzer.domain.morphology.outlines import Outlines, outlines_of
from granulo_analyzer.domain.morphology.perimeters import crofton, crossings_of
from granulo_analyzer.domain.morphology.runs import (
    Floats,
    Ints,
    Moments,
    Runs,
    line_angles_deg,
    moments_of,
    touched_edges,
)


class Particles:
    """The particles of a label image in pixels, of at least one.

    Parameters
    ----------
    runs : Runs
        Of the label image.
    grey : (H, W) array, optional
        The micrograph.
    gap_px : float
        See `agglomerates.agglomerates_of`.
    """

    def __init__(self, runs: Runs, grey: NDArray[Any] | None = None, gap_px: float = 0.0) -> None:
        self.runs = runs
        self.grey = grey
        self.gap_px = gap_px

    @property
    def count(self) -> int:
        """Number of particles."""
        return len(self.runs.labels)

    @cached_property
    def framed(self) -> NDArray[np.int32]:
        """(H + 2, W + 2) particles numbered from 1, framed by background."""
        return self.runs.framed_image()

    @cached_property
    def box(self) -> Ints:
        """(n, 4) see `Runs.box`."""
        return self.runs.box()

    @cached_property
    def moments(self) -> Moments:
        """Area, centroid and covariance."""
        return moments_of(self.runs)

    @cached_property
    def outlines(self) -> Outlines:
        """Smoothed outlines."""
        return outlines_of(self.framed)

    @cached_property
    def hulls(self) -> Hulls:
        """Hulls of the smoothed outlines."""
        return outline_hulls(self.outlines, self.box)

    @cached_property
    def crossings(self) -> Ints:
        """(4, n) see `crossings_of`."""
        return crossings_of(self.framed, self.outlines, self.count)

    @cached_property
    def solidity(self) -> Floats:
        """(n,) share of the pixels in the hull of the pixel centres."""
        return self.moments.area / hull_pixels(self.runs)

    @cached_property
    def agglomerates(self) -> Agglomerates:
        """Groups of touching particles."""
        return agglomerates_of(self.framed, self.outlines, self.count, self.gap_px)


class Sizes:
    """Lengths, areas and shapes of particles in the unit of a pixel's size.

    Parameters
    ----------
    particles : Particles
    pixel_size : (float, float)
        Width and height of a pixel; (1, 1) gives pixels.
    """

    def __init__(self, particles: Particles, pixel_size: tuple[float, float]) -> None:
        self.particles = particles
        self.pixel_size = pixel_size
        self.scale = np.array(pixel_size)

    @cached_property
    def area(self) -> Floats:
        """(n,) of the pixels, holes left out."""
        return self.particles.moments.area * (self.pixel_size[0] * self.pixel_size[1])

    @cached_property
    def perimeter(self) -> Floats:
        """(n,) by Crofton's formula."""
        return crofton(self.particles.crossings, self.pixel_size)

    @cached_property
    def calipers(self) -> Calipers:
        """Feret diameters and the like."""
        return Calipers(self.particles.hulls, self.scale)

    @cached_property
    def max_feret(self) -> Floats:
        """(n,) at least the diameter of the disc of equal area, which no shape undercuts."""
        return np.maximum(self.calipers.largest, np.sqrt(4 * self.area / np.pi))

    @cached_property
    def covariance(self) -> Floats:
        """(3, n) xx, yy and xy."""
        width, height = self.pixel_size
        scaled: Floats = (
            self.particles.moments.covariance * (width**2, height**2, width * height)
        ).T
        return scaled

    @cached_property
    def ellipse(self) -> tuple[Floats, Floats]:
        """(n,) major and minor axis of the ellipse of the same second moments."""
        xx, yy, xy = self.covariance
        spread, middle = np.hypot((xx - yy) / 2, xy), (xx + yy) / 2
        return 4 * np.sqrt(middle + spread), 4 * np.sqrt(np.maximum(middle - spread, 0))

    @cached_property
    def depth(self) -> NDArray[np.float32]:
        """(H + 2, W + 2) distance to the outline."""
        return depth_of(self.particles.framed, self.particles.outlines, self.scale)

    @cached_property
    def geodesic_length(self) -> Floats:
        """(n,) never below the maximum Feret diameter."""
        bent = self.particles.solidity < STRAIGHT_SOLIDITY
        if not bent.any():
            return self.max_feret
        along = geodesic_lengths(self.particles.framed, self.particles.outlines, bent, self.scale)
        return np.maximum(along, self.max_feret)

    @cached_property
    def fibre_width(self) -> Floats:
        """(n,) of the stadium of this area and geodesic length."""
        return fibre_widths(self.area, self.geodesic_length)

    @cached_property
    def inscribed_diameter(self) -> Floats:
        """(n,) of the largest circles inside."""
        particles = self.particles
        return inscribed_diameters(particles.runs, particles.outlines, self.depth, self.scale)

    @cached_property
    def orientation(self) -> Floats:
        """(n,) angle of the major axis to the x axis, counter-clockwise as seen, in [0, 180)."""
        xx, yy, xy = self.covariance
        half = np.arctan2(2 * xy, xx - yy) / 2
        return line_angles_deg(np.cos(half), np.sin(half))

    @cached_property
    def mean_grey(self) -> Floats:
        """(n,) needs a micrograph."""
        assert self.particles.grey is not None
        return self.particles.runs.mean_of(self.particles.grey)

    @cached_property
    def edge_sharpness(self) -> Floats:
        """(n,) needs a micrograph."""
        assert self.particles.grey is not None
        return edge_sharpness(self.particles.grey, self.particles.outlines, self.scale)


FORMULAE: Mapping[str, Callable[[Sizes], NDArray[Any]]] = {
    "area": lambda s: s.area,
    "ecd": lambda s: np.sqrt(4 * s.area / np.pi),
    "sqrt_area": lambda s: np.sqrt(s.area),
    "perimeter": lambda s: s.perimeter,
    "polygon_perimeter": lambda s: s.particles.outlines.lengths(s.scale),
    "max_feret": lambda s: s.max_feret,
    "min_feret": lambda s: s.calipers.smallest,
    "feret_90": lambda s: s.calipers.across_largest,
    "feret_x": lambda s: (s.particles.box[:, 2] - s.particles.box[:, 0]) * s.scale[0],
    "feret_y": lambda s: (s.particles.box[:, 3] - s.particles.box[:, 1]) * s.scale[1],
    "rectangle_length": lambda s: s.calipers.rectangle[0],
    "rectangle_width": lambda s: s.calipers.rectangle[1],
    "inscribed_diameter": lambda s: s.inscribed_diameter,
    "circumscribed_diameter": lambda s: circumscribed_diameters(s.particles.hulls, s.scale),
    "ellipse_major": lambda s: s.ellipse[0],
    "ellipse_minor": lambda s: s.ellipse[1],
    "geodesic_length": lambda s: s.geodesic_length,
    "fibre_width": lambda s: s.fibre_width,
    "centroid_x": lambda s: s.particles.moments.centroid[:, 0] * s.scale[0],
    "centroid_y": lambda s: s.particles.moments.centroid[:, 1] * s.scale[1],
    "aspect_ratio": lambda s: s.calipers.smallest / s.max_feret,
    "elongation": lambda s: s.fibre_width / s.geodesic_length,
    "circularity": lambda s: 4 * np.pi * s.area / s.perimeter**2,
    "circularity_root": lambda s: np.sqrt(4 * np.pi * s.area) / s.perimeter,
    "roundness": lambda s: 4 * s.area / (np.pi * s.max_feret**2),
    "compactness": lambda s: np.sqrt(4 * s.area / np.pi) / s.max_feret,
    "solidity": lambda s: s.particles.solidity,
    "convexity": lambda s: s.calipers.perimeter / s.particles.outlines.lengths(s.scale),
    "extent": lambda s: s.area / (s.max_feret * s.calipers.smallest),
    "fractal_dimension": lambda s: fractal_dimensions(s.particles.runs, s.particles.agglomerates),
    "orientation": lambda s: s.orientation,
    "max_feret_angle": lambda s: s.calipers.angle_deg,
    "mean_grey": lambda s: s.mean_grey,
    "edge_sharpness": lambda s: s.edge_sharpness,
    "label": lambda s: s.particles.runs.labels,
    "agglomerate": lambda s: s.particles.agglomerates.number,
    "constituents": lambda s: s.particles.agglomerates.constituents,
    "touches_border": lambda s: touched_edges(s.particles.runs) > 0,
    "touched_edges": lambda s: touched_edges(s.particles.runs),
}
"""Every quantity that is measured, from lengths in the unit of `Sizes`."""
