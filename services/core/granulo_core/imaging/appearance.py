# SPDX-License-Identifier: GPL-3.0-or-later
"""The appearance model: draws a micrograph from rendered geometry layers and a look.

Blender renders a scene's geometry once (:class:`Layers`); a :class:`Look` holds every number of one
micrograph's appearance; :func:`draw` combines the two with numpy and OpenCV in a few hundredths of
a second. So one scene gives any number of micrographs with the same, error-free labels.
"""

import numpy as np
from numpy.typing import NDArray

from granulo_core.imaging.annotations import burn_in
from granulo_core.imaging.detector import detect
from granulo_core.imaging.layers import Layers
from granulo_core.imaging.look import Look
from granulo_core.imaging.modality import Family, ModalityName, random_look
from granulo_core.imaging.shading import shade
from granulo_core.imaging.streams import Streams
from granulo_core.imaging.texture import FloatImage

__all__ = ["Family", "Layers", "Look", "ModalityName", "draw", "draw_annotated", "random_look"]


def draw(layers: Layers, look: Look, rng: np.random.Generator) -> FloatImage:
    """Draw the micrograph of a scene.

    Parameters
    ----------
    layers : Layers
        Geometry at the size of the micrograph.
    look : Look
    rng : numpy.random.Generator
        Key of the brightness of each particle, the textures and the noise. Each effect has its own
        random numbers, so that changing one leaves the others as they were.

    Returns
    -------
    (H, W) float32 in [0, 1]
        Deterministic from the arguments (and the state of ``rng``).
    """
    return draw_annotated(layers, look, rng)[0]


def draw_annotated(
    layers: Layers, look: Look, rng: np.random.Generator
) -> tuple[FloatImage, NDArray[np.bool_]]:
    """Draw the micrograph of a scene, and say what its data bar and scale bar hide.

    Parameters
    ----------
    layers, look, rng
        As for :func:`draw`.

    Returns
    -------
    image : (H, W) float32 in [0, 1]
        As :func:`draw` gives it.
    covered : (H, W) bool
        Pixels that show writing instead of the specimen: labels have to be cleared there.
    """
    streams = Streams(rng)
    image = detect(shade(layers, look, streams), layers.height_nm, look, streams)
    return burn_in(image, layers.pixel_size_nm, look, streams)
