# SPDX-License-Identifier: GPL-3.0-or-later
"""Thresholds for one trained network: predicts held-out renders once and searches on them."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from granulo_core.imaging import appearance
from granulo_core.imaging.instances import InstanceParams
from granulo_core.imaging.normalise import to_network_input
from granulo_core.imaging.scale import ScaleParams, predict_adaptively
from granulo_core.store.port import ObjectStore
from granulo_trainer import datasets
from granulo_trainer.domain.config import TrainingConfig
from granulo_trainer.domain.tuning import FEWEST_SCENES, PredictedImage, Tuning, tune
from granulo_trainer.unet.views import Scene

Predict = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
Labelled = tuple[NDArray[np.uint8], NDArray[Any]]
"""The network's input (H, W) and its true instances."""

_LOOKS = 3
"""The delivered image and two looks as varied as those trained on: delivered ones are easier."""
_MOST_SIDE_PX = 896
_BUDGET_PX = 36 * 512 * 512
"""Pixels of all looks together, which bounds the time of the search."""
_LOOK_SEED = 20_407


def tune_on_renders(
    store: ObjectStore,
    names: Sequence[str],
    config: TrainingConfig,
    predict: Predict,
    scale: ScaleParams | None,
    default: InstanceParams | None = None,
) -> Tuning | None:
    """Tune on the scenes of rendered datasets that the training kept back.

    Parameters
    ----------
    store : ObjectStore
    names : sequence of str
        The datasets that were trained on; annotated real images among them are left out.
    config : TrainingConfig
    predict : callable
        (H, W) uint8 to (H, W, C) float32 probabilities.
    scale : ScaleParams or None
        How the segmenter will choose the input scale.
    default : InstanceParams, optional
        What has to be beaten.

    Returns
    -------
    Tuning or None
        None for a network without a distance output, whose threshold is the paper's 0.51 (M20),
        and where fewer than two renders were kept back.
    """
    if not config.predicts_instances:
        return None
    _, held_out = datasets.split_held_out(datasets.list_scenes(store, names))
    renders = [scene for scene in held_out if scene.name.startswith("datasets/")]
    if len(renders) < FEWEST_SCENES:
        return None
    return tune(
        [
            [_predicted(look, predict, scale) for look in looks]
            for number, scene in enumerate(renders)
            if (looks := _looks(store, scene, config, number, _BUDGET_PX // len(renders)))
        ],
        default,
    )


def _looks(
    store: ObjectStore,
    objects: datasets.SceneObjects,
    config: TrainingConfig,
    number: int,
    budget_px: int,
) -> list[Labelled]:
    """The delivered image, then fresh looks of the scene's layers where it has them."""
    delivered = [
        (_middle(image.pixels), _middle(image.labels))
        for image in datasets.held_out_images(store, [objects], config)
        if image.labels is not None
    ]
    scene = datasets.load_scene(store, objects, config)
    side_px = min(_MOST_SIDE_PX, *scene.instances.shape)
    count = min(_LOOKS, max(1, budget_px // side_px**2)) - len(delivered)
    return delivered + list(_fresh_looks(scene, config, number, count))


def _fresh_looks(
    scene: Scene, config: TrainingConfig, number: int, count: int
) -> Iterator[Labelled]:
    if scene.layers is None:
        return
    for look in range(count):
        rng = np.random.default_rng([_LOOK_SEED, number, look])
        chosen = appearance.random_look(rng, modality=scene.modality)
        drawn = appearance.draw(scene.layers, chosen, rng)
        pixels = to_network_input(np.rint(drawn * 255.0).astype(np.uint8), config.convention)
        yield _middle(pixels), _middle(scene.instances)


def _predicted(look: Labelled, predict: Predict, scale: ScaleParams | None) -> PredictedImage:
    pixels, truth = look
    if scale is None:
        outputs = predict(pixels)
    else:
        outputs, _ = predict_adaptively(pixels, predict, InstanceParams(), scale)
    return PredictedImage(pixels=pixels, outputs=outputs, truth=truth)


def _middle(image: NDArray[Any]) -> NDArray[Any]:
    """The middle of a large image."""
    top, left = ((length - min(length, _MOST_SIDE_PX)) // 2 for length in image.shape)
    return np.ascontiguousarray(image[top : top + _MOST_SIDE_PX, left : left + _MOST_SIDE_PX])
