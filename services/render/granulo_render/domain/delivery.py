# SPDX-License-Identifier: GPL-3.0-or-later
"""What one scene delivers."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from granulo_core.imaging.appearance import Layers
from granulo_render.domain.coverage import coverage_layer
from granulo_render.domain.labels import Truth, truth
from granulo_render.domain.look import choose_look, draw_micrograph
from granulo_render.domain.material import contrast_layer
from granulo_render.domain.recipe import Recipe, Shading
from granulo_render.domain.scene import Scene


@dataclass(frozen=True, eq=False)
class Delivery:
    """The image and the truth of one scene, all of the same side."""

    micrograph: NDArray[np.uint8]
    """(H, W)."""
    layers: Layers
    """The geometry with its materials: new looks are drawn from it."""
    truth: Truth
    unplaced: int
    """Particles asked for that found no place."""

    @property
    def labelled(self) -> int:
        """Number of particles in the labels."""
        return sum(item.labelled for item in self.truth.particles)


def deliver(recipe: Recipe, seed: int, index: int, scene: Scene, layers: Layers) -> Delivery:
    """Make everything of scene ``index`` from its rendered layers (M7: one scene, both images)."""
    contrast = contrast_layer(scene, layers.instances)
    by_model = scene.shading is Shading.LAYERS  # Cycles sampled whole pixels itself
    coverage = coverage_layer(scene, layers.instances) if by_model else None
    layers = replace(layers, contrast=contrast, coverage=coverage)
    look = choose_look(recipe, seed, index, scene.upsampling)
    micrograph, covered = draw_micrograph(layers, look, seed, index)
    return Delivery(micrograph, layers, truth(scene, layers, covered), scene.unplaced)
