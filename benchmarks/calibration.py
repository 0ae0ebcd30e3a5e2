# SPDX-License-Identifier: GPL-3.0-or-later
"""Thresholds, confidence of particles and polarity on renders: ``calibration.py OUT``.

Renders SCENES scenes (default 12) of every recipe below, of each of three seeds that the default
model was not trained on, and segments fresh looks of them by the same functions as the service. It
prints the thresholds that the trainer's rule chooses on two of the seeds, and what the network's
own and these come to on the third; the numbers for `granulo_core.imaging.confidence` fitted to the
two, and the expected calibration error on the third; then how often dark particles were known as
such in transmission images, and bright ones in others.

Environment: ``SCENES``, ``PARTS`` (``thresholds,confidence,polarity``), ``MODEL_FOLDER`` (a
SavedModel instead of the packaged one).
"""

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from compare_networks import granulo
from numpy.typing import NDArray

from granulo_core.imaging import traits
from granulo_core.imaging.appearance import Layers, draw, random_look
from granulo_core.imaging.confidence import Calibration, expected_calibration_error
from granulo_core.imaging.instances import decode
from granulo_core.imaging.matching import evaluate
from granulo_core.imaging.normalise import to_network_input
from granulo_core.imaging.read import Micrograph
from granulo_core.store import LocalStore
from granulo_core.store import manifest as manifests
from granulo_segmenter.domain.model import DISTANCE, FOREGROUND, ModelFacts
from granulo_segmenter.domain.options import Invert, Method, Options
from granulo_segmenter.domain.planes import whole
from granulo_segmenter.domain.segmentation import segment
from granulo_segmenter.predictor import versions
from granulo_trainer.domain.tuning import PredictedImage, tune
from granulo_trainer.unet.overlays import burn_overlays

STUDY = Path(__file__).resolve().parent.parent / "examples" / "default-model"
RECIPES = ("tio2", "spheres_any", "mixed_any", STUDY / "piles.yaml", STUDY / "rods.yaml")
FIT_SEEDS, CHECK_SEED = (101, 202), 303
SEM = ("sem_in_lens", "sem_side_detector", "him")
RIDGE = 1.0
METHODS = {"distance": Method.MODEL, "foreground": Method.PAPER}


@dataclass(frozen=True)
class Sample:
    """Instances with what they turned out to be."""

    traits: NDArray[np.float64]
    true: NDArray[np.bool_]


class InProcess:
    """The packaged network without a server; see `PredictTiles`."""

    def __init__(self, folder: Path) -> None:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        import tensorflow as tf

        self._tf = tf
        self._model = tf.saved_model.load(str(folder))

    def __call__(
        self, tiles: Iterable[NDArray[np.uint8]], names: Sequence[str]
    ) -> Iterator[Mapping[str, NDArray[Any]]]:
        """Predict tiles."""
        run = self._model.signatures["serving_default"]
        for tile in tiles:
            found = run(image=self._tf.constant(tile[None, :, :, None]))
            yield {name: np.asarray(found[name])[0] for name in names}


def main(out: Path) -> None:
    scenes = int(os.environ.get("SCENES") or 12)
    parts = (os.environ.get("PARTS") or "thresholds,confidence,polarity").split(",")
    fit = [scene for seed in FIT_SEEDS for scene in rendered(out / "data", seed, scenes)]
    check = rendered(out / "data", CHECK_SEED, scenes)
    folder = Path(os.environ.get("MODEL_FOLDER") or versions.packaged_folder())
    predict = InProcess(folder)
    facts = ModelFacts.from_json(
        json.loads((folder / "assets.extra" / "granulo.json").read_text(encoding="utf-8"))
    )
    if "thresholds" in parts:
        thresholds(predict, facts, fit, check)
    if "confidence" in parts:
        for name in METHODS:
            confidence(predict, facts, fit, check, name)
    if "polarity" in parts:
        for title, layers in (("fitted on", fit), ("held out", check)):
            for modality in ("tem", "sem"):
                polarity(predict, facts, layers, f"{modality}, {title}", modality)


def rendered(data: Path, seed: int, scenes: int) -> list[Layers]:
    """Geometry of the scenes of a seed, recipe after recipe."""
    store = LocalStore(data / "store")
    found = []
    for recipe in RECIPES:
        name = granulo(data, "render", recipe, "--count", scenes, "--seed", seed)["dataset"]
        objects = manifests.load(store, name).objects
        found += [
            Layers.load(store.get(item.key, item.digest))
            for item in objects
            if "/layers/" in item.key
        ]
    return found


def thresholds(
    predict: InProcess, facts: ModelFacts, fit: Sequence[Layers], check: Sequence[Layers]
) -> None:
    tuned = tune([[look] for look in predicted(predict, facts, fit)])
    assert tuned is not None  # of fewer than two scenes
    print(f"thresholds: {tuned.params}")
    print(f"  fitted on: {tuned.images} images, AP {tuned.default_ap:.3f} with the default, "
          f"{tuned.tuned_ap:.3f} tuned (gain ± {tuned.standard_error:.3f})")  # fmt: skip
    held_out = list(predicted(predict, facts, check))
    others = [replace(tuned.params, marker_depth=depth) for depth in (0.18, 0.25, 0.3, 0.35, 0.45)]
    for params in dict.fromkeys((facts.instances, tuned.params, *others)):
        scores = [
            evaluate(
                look.truth,
                decode(look.outputs[..., 0], look.outputs[..., 1], params, look.pixels),
            )
            for look in held_out
        ]
        print(f"  held out: depth {params.marker_depth}, marker {params.marker_threshold}: "
              f"AP {np.mean([one['ap'] for one in scores]):.3f}, "
              f"AP50 {np.mean([one['ap50'] for one in scores]):.3f}", flush=True)  # fmt: skip


def predicted(
    predict: InProcess, facts: ModelFacts, layers: Sequence[Layers]
) -> Iterator[PredictedImage]:
    """The network's outputs at the scale that the segmenter chooses, for looks in SEM."""
    for image, truth in drawn(layers, "sem"):
        found = segment(image, facts, predict, options=Options(invert=Invert.NO))
        everywhere = whole(image.pixels.shape)
        outputs = np.dstack([found.maps.read(name, everywhere) for name in (FOREGROUND, DISTANCE)])
        yield PredictedImage(to_network_input(image.pixels, facts.convention), outputs, truth)


def confidence(
    predict: InProcess,
    facts: ModelFacts,
    fit_layers: Sequence[Layers],
    check_layers: Sequence[Layers],
    name: str,
) -> None:
    fit = collect(predict, facts, fit_layers, METHODS[name])
    check = collect(predict, facts, check_layers, METHODS[name])
    calibration = fitted(fit)
    print(f'"{name}": {calibration},')
    for label, sample in (("fitted on", fit), ("held out", check)):
        found = calibration.probability(sample.traits)
        error = expected_calibration_error(found, sample.true)
        print(f"{name}, {label}: {len(found)} instances, {sample.true.mean():.3f} true, "
              f"ECE {error:.3f}", flush=True)  # fmt: skip
    probability = calibration.probability(check.traits)
    place = np.minimum((probability * 5).astype(int), 4)
    for fifth in np.unique(place):
        inside = place == fifth
        mean, share = probability[inside].mean(), check.true[inside].mean()
        print(f"  from {fifth / 5:.1f}: {inside.sum()} instances, mean {mean:.2f}, "
              f"true {share:.2f}")  # fmt: skip


def polarity(
    predict: InProcess, facts: ModelFacts, layers: Sequence[Layers], title: str, modality: str
) -> None:
    right = [
        segment(image, facts, predict).inverted == (modality == "tem")
        for image, _ in drawn(layers, modality)
    ]
    print(f"polarity, {title}: {sum(right)} of {len(right)} right", flush=True)


def drawn(layers: Sequence[Layers], modality: str) -> Iterator[tuple[Micrograph, NDArray[Any]]]:
    """Micrographs with their true labels, every fourth with writing on it."""
    for index, scene in enumerate(layers):
        rng = np.random.default_rng([index, 5])
        name = SEM[index % len(SEM)] if modality == "sem" else modality
        image = draw(scene, random_look(rng, modality=name), rng)  # type: ignore[arg-type]
        pixels, labels = np.rint(image * 255).astype(np.uint8), scene.instances
        if index % 4 == 0:
            pixels, labels = burn_overlays(pixels, labels, rng)
        yield Micrograph(pixels, None, pixels.shape[0], "drawn"), labels


def collect(
    predict: InProcess, facts: ModelFacts, layers: Sequence[Layers], method: Method
) -> Sample:
    """Segment looks of the scenes, all in SEM and every fourth in TEM, and match what was found."""
    rows, true = [], []
    for modality, part in (("sem", layers), ("tem", layers[::4])):
        for image, truth in drawn(part, modality):
            options = Options(method=method, invert=Invert.YES if modality == "tem" else Invert.NO)
            found = segment(image, facts, predict, options=options)
            if not found.particle_count:
                continue
            everything = whole(image.pixels.shape)
            distance = None
            if DISTANCE in found.maps.planes:
                distance = found.maps.read(DISTANCE, everything)
            measured = traits.measure(
                found.labels.astype(np.int32), found.maps.read(FOREGROUND, everything), distance
            )
            rows.append(traits.with_relative_area(measured))
            true.append(is_true(found.labels, truth))
    return Sample(np.concatenate(rows), np.concatenate(true))


def is_true(labels: NDArray[np.uint32], truth: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether each label has an IoU of at least 0.5 with a true particle."""
    pairs, overlap = np.unique(
        np.stack([labels.ravel(), truth.ravel()]).astype(np.int64), axis=1, return_counts=True
    )
    sizes = np.bincount(labels.ravel()), np.bincount(truth.ravel())
    union = sizes[0][pairs[0]] + sizes[1][pairs[1]] - overlap
    hits = pairs[0][(pairs > 0).all(axis=0) & (overlap >= 0.5 * union)]
    result = np.zeros(len(sizes[0]), dtype=bool)
    result[hits] = True
    return result[1:]


def fitted(sample: Sample) -> Calibration:
    """Logistic regression with a ridge, by Newton's method."""
    centre = sample.traits.mean(axis=0)
    spread = sample.traits.std(axis=0) + 1e-9
    spread[spread < 1e-6] = 1.0
    standard = np.clip((sample.traits - centre) / spread, -3.0, 3.0)
    design = np.column_stack([standard, np.ones(len(standard))])
    weight = np.zeros(design.shape[1])
    penalty = np.diag(np.append(np.full(standard.shape[1], RIDGE), 0.0))
    for _ in range(30):
        probability = 1 / (1 + np.exp(-design @ weight))
        gradient = design.T @ (probability - sample.true) + penalty @ weight
        curvature = (design.T * (probability * (1 - probability))) @ design + penalty
        weight -= np.linalg.solve(curvature, gradient)
    return Calibration(_plain(centre), _plain(spread), _plain(weight[:-1]), round(weight[-1], 4))


def _plain(values: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(round(float(value), 4) for value in values)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: calibration.py OUT")
    main(Path(sys.argv[1]))
