# SPDX-License-Identifier: GPL-3.0-or-later
"""The look of one scene's micrograph, and the micrograph itself."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from granulo_core.imaging.appearance import Layers, Look, draw, random_look
from granulo_render.domain import sampling
from granulo_render.domain.recipe import Recipe, Sphere
from granulo_render.domain.sampling import Stream, scene_rng


def choose_look(recipe: Recipe, seed: int, index: int, upsampling: int) -> Look:
    """Draw the look of scene ``index``.

    What the recipe's ``appearance`` leaves out keeps the wide default distribution of
    `granulo_core.imaging.appearance.random_look`.
    """
    rng = scene_rng(seed, index, Stream.LOOK)
    spheres = all(isinstance(kind.shape, Sphere) for kind in recipe.classes)
    look = random_look(rng, family="spheres" if spheres else "agglomerates")
    # In the order of names: equal recipes give equal looks, however they were written.
    chosen = {name: sampling.draw(law, rng) for name, law in sorted(recipe.appearance.items())}
    return replace(look, **chosen, upsampling=float(upsampling))


def draw_micrograph(layers: Layers, look: Look, seed: int, index: int) -> NDArray[np.uint8]:
    """Draw the 8-bit micrograph (H, W) of scene ``index`` from its layers and its look."""
    image = draw(layers, look, scene_rng(seed, index, Stream.DRAWING))
    pixels: NDArray[np.uint8] = np.rint(image * 255).astype(np.uint8)
    return pixels
