# SPDX-License-Identifier: GPL-3.0-or-later
"""The look of one scene's micrograph, and the micrograph itself."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from granulo_core.imaging.appearance import Layers, Look, draw_annotated, random_look
from granulo_render.domain.recipe import Recipe, Sphere
from granulo_render.domain.sampling import draw
from granulo_render.domain.streams import Streams


def choose_look(recipe: Recipe, seed: int, index: int, upsampling: int) -> Look:
    """Draw the look of scene ``index``.

    What the recipe's ``appearance`` leaves out keeps the distribution of the recipe's modality, see
    `granulo_core.imaging.appearance.random_look`. Each parameter that it names has random numbers
    of its own: adding one leaves the others as they were.
    """
    streams = Streams(seed, index)
    spheres = all(isinstance(kind.shape, Sphere) for kind in recipe.classes)
    look = random_look(
        streams.of("look"),
        family="spheres" if spheres else "agglomerates",
        modality=recipe.modality.value,
    )
    chosen = {
        name: draw(law, streams.of(f"appearance.{name}")) for name, law in recipe.appearance.items()
    }
    return replace(look, **chosen, upsampling=float(upsampling))


def draw_micrograph(
    layers: Layers, look: Look, seed: int, index: int
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Draw the micrograph of scene ``index`` from its layers and its look.

    Parameters
    ----------
    layers : Layers
    look : Look
    seed : int
        Seed of the dataset.
    index : int
        Number of the scene.

    Returns
    -------
    image : (H, W) uint8
    covered : (H, W) bool
        Pixels that a data bar or a scale bar hides.
    """
    image, covered = draw_annotated(layers, look, Streams(seed, index).of("drawing"))
    return np.rint(image * 255).astype(np.uint8), covered
