# SPDX-License-Identifier: GPL-3.0-or-later
"""The comparison of two sets of described images: figures and a map."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from granulo_analyzer.domain.comparison import Interval
from granulo_analyzer.domain.realism import mixing
from granulo_analyzer.domain.realism.embedding import (
    neighbour_map,
    perplexity_for,
    principal_components,
)
from granulo_analyzer.domain.realism.jobs import ComparisonSettings, DescribedImage
from granulo_analyzer.domain.realism.mixing import Origin
from granulo_analyzer.domain.realism.patches import thinned, units

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class DescribedPatches:
    """All patches of both sets, as many of each."""

    features: FloatArray
    """(n, F)"""
    corners: NDArray[np.int64]
    """(n, 2): row and column of the upper left pixel."""
    image: NDArray[np.int64]
    """(n,): place of the image among those that were described."""
    synthetic: NDArray[np.bool_]
    """(n,)"""


@dataclass(frozen=True)
class Realism:
    """How much alike two sets of images are."""

    patches: DescribedPatches
    map: FloatArray
    """(n, 2), in units of its own."""
    principal_components: int
    perplexity: float
    figures: Mapping[str, tuple[str, Interval]]
    """UCUM unit and value by name."""
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The facts of a comparison: what is not known is None."""
        return {
            "figures": [
                {
                    "name": name,
                    "unit": unit,
                    **{
                        bound: _known(getattr(found, bound))
                        for bound in ("value", "lower", "upper")
                    },
                }
                for name, (unit, found) in self.figures.items()
            ],
            "real_patches": int(np.count_nonzero(~self.patches.synthetic)),
            "synthetic_patches": int(np.count_nonzero(self.patches.synthetic)),
            "principal_components": self.principal_components,
            "perplexity": self.perplexity,
            "warnings": list(self.warnings),
        }


def pool(
    images: Sequence[DescribedImage],
    tables: Sequence[tuple[FloatArray, NDArray[np.int64]]],
    max_patches: int,
) -> DescribedPatches:
    """Join the patches of all images; of the larger set some are left out evenly.

    Parameters
    ----------
    images : sequence of DescribedImage
    tables : sequence of ((n, F) float64, (n, 2) int64)
        Features and corners of each image's patches.
    max_patches : int
        Of each set.
    """
    image = np.repeat(np.arange(len(images)), [len(features) for features, _ in tables])
    synthetic = np.array([item.image.set_name == "synthetic" for item in images])[image]
    sets = [np.flatnonzero(synthetic == kind) for kind in (False, True)]
    most = min(max_patches, *(len(members) for members in sets))
    kept = np.concatenate([members[thinned(len(members), most)] for members in sets])
    return DescribedPatches(
        features=np.concatenate([features for features, _ in tables])[kept],
        corners=np.concatenate([corners for _, corners in tables])[kept],
        image=image[kept],
        synthetic=synthetic[kept],
    )


def compare(
    images: Sequence[DescribedImage], patches: DescribedPatches, settings: ComparisonSettings
) -> Realism:
    """Compare the patches of two sets, and the noise and the edges of their images.

    Parameters
    ----------
    images : sequence of DescribedImage
    patches : DescribedPatches
    settings : ComparisonSettings

    Returns
    -------
    Realism
        ``mixed_neighbours``, ``mixed_neighbours_expected``, ``mixing``, ``classifier_accuracy``;
        of noise and edge width the mean of each set and the ratio synthetic over real.

    Raises
    ------
    ValueError
        All patches are alike.
    """
    # The outputs of a network have one scale; texture features have one each.
    components = principal_components(patches.features, standardise=settings.vgg16_weights is None)
    origin = _origin(patches)
    mixed = mixing.mixing(components, origin, settings.seed)
    accuracy = mixing.classifier_accuracy(components, origin, settings.seed)
    figures = {
        "mixed_neighbours": ("1", mixed.observed),
        "mixed_neighbours_expected": ("1", mixed.expected),
        "mixing": ("1", mixed.ratio),
        "classifier_accuracy": ("1", accuracy),
        **_of_images("noise", "1", images, [item.noise for item in images], settings.seed),
        **_of_images(
            "edge_width", "[px]", images, [item.edge_width_px for item in images], settings.seed
        ),
    }
    perplexity = perplexity_for(len(components), settings.perplexity)
    return Realism(
        patches=patches,
        map=neighbour_map(components, perplexity, settings.seed),
        principal_components=components.shape[1],
        perplexity=perplexity,
        figures=figures,
        warnings=tuple(_warnings(images, perplexity, settings)),
    )


def _origin(patches: DescribedPatches) -> Origin:
    image = np.empty(len(patches.image), dtype=np.int64)
    first = 0
    for kind in (False, True):
        own = patches.synthetic == kind
        numbers = units(patches.image[own], patches.corners[own, 0])
        image[own] = numbers + first
        first += int(numbers.max()) + 1
    return Origin(patches.synthetic, image)


def _of_images(
    name: str,
    unit: str,
    images: Sequence[DescribedImage],
    values: Sequence[float | None],
    seed: int,
) -> dict[str, tuple[str, Interval]]:
    known = np.array([np.nan if value is None else value for value in values])
    synthetic = np.array([item.image.set_name == "synthetic" for item in images])
    real, rendered = known[~synthetic], known[synthetic]
    return {
        f"{name}_real": (unit, mixing.mean_of_images(real, seed)),
        f"{name}_synthetic": (unit, mixing.mean_of_images(rendered, seed)),
        f"{name}_ratio": ("1", mixing.ratio_of_means(real, rendered, seed)),
    }


def _warnings(
    images: Sequence[DescribedImage], perplexity: float, settings: ComparisonSettings
) -> list[str]:
    found = []
    digests: dict[str, set[str]] = {"real": set(), "synthetic": set()}
    names: dict[str, list[str]] = {"real": [], "synthetic": []}
    for item in images:
        digests[item.image.set_name].add(item.image.file.digest)
        names[item.image.set_name].append(item.image.file.name)
    common = digests["real"] & digests["synthetic"]
    if common:
        same = [i.image.file.name for i in images if i.image.file.digest in common]
        shown = ", ".join(dict.fromkeys(same))
        found.append(f"in both sets, which makes them alike: {shown}")
    for name, members in names.items():
        if len(digests[name]) < len(members):
            found.append(f"a file is more than once among the {name} images")
        if len(members) == 1:
            found.append(
                f"there is one {name} image only: its upper and its lower half count as images"
            )
    if perplexity < settings.perplexity:
        found.append(f"few patches: perplexity {perplexity:g} instead of {settings.perplexity:g}")
    return found


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
