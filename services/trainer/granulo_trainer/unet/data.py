# SPDX-License-Identifier: GPL-3.0-or-later
"""Training patches: a fresh look for each, drawn in the background, in an order fixed by the seed.

Patch number n is drawn from ``SeedSequence([seed, n])`` and used in a place that follows from the
seed alone. So a resumed run sees exactly the patches that an undisturbed one would have seen, and
the number of threads changes nothing.
"""

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import fields
from threading import Lock
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from granulo_core.imaging import appearance
from granulo_core.imaging.normalise import InputConvention, to_network_input
from granulo_trainer.domain.config import TrainingConfig
from granulo_trainer.domain.mixture import Mixture
from granulo_trainer.unet import overlays, plain, targets, views

Patch = tuple[NDArray[np.uint8], NDArray[np.uint8]]
"""Network input (P, P) and targets (P, P, C)."""

_PATCH_STREAM, _USE_STREAM, _ORDER_STREAM = 1, 2, 3
_CACHE_BYTES = 1 << 30


class SceneSource(Protocol):
    """Scenes by number, and which of them a patch is drawn from."""

    @property
    def mixture(self) -> Mixture:
        """The datasets that the scenes belong to, with their shares."""

    def __len__(self) -> int:
        """Number of scenes."""

    def load(self, index: int) -> views.Scene:
        """Read one scene; called from several threads."""


class CachedScenes:
    """Keeps recently used scenes in memory, up to about a gibibyte.

    Parameters
    ----------
    count : int
        Number of scenes.
    load : callable
        Reads the scene of a number; called from several threads.
    mixture : Mixture, optional
        Datasets of the scenes and their shares; by default every scene is equally likely.
    """

    def __init__(
        self,
        count: int,
        load: Callable[[int], views.Scene],
        mixture: Mixture | None = None,
    ) -> None:
        self.mixture = mixture or Mixture.in_proportion([count])
        if self.mixture.scene_count != count:
            raise ValueError(f"{count} scenes, but a mixture of {self.mixture.scene_count}")
        self._count = count
        self._load = load
        self._scenes: OrderedDict[int, views.Scene] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    def __len__(self) -> int:
        """Number of scenes."""
        return self._count

    def load(self, index: int) -> views.Scene:
        """A scene from memory, or read now."""
        with self._lock:
            if index in self._scenes:
                self._scenes.move_to_end(index)
                return self._scenes[index]
        scene = self._load(index)
        with self._lock:
            if index not in self._scenes:
                self._scenes[index] = scene
                self._bytes += _bytes_of(scene)
            while self._bytes > _CACHE_BYTES and len(self._scenes) > 1:
                _, dropped = self._scenes.popitem(last=False)
                self._bytes -= _bytes_of(dropped)
        return scene


def draw_patch(source: SceneSource, config: TrainingConfig, rng: np.random.Generator) -> Patch:
    """Draw one training patch.

    Parameters
    ----------
    source : SceneSource
    config : TrainingConfig
    rng : numpy.random.Generator

    Returns
    -------
    image : (P, P) uint8
        Prepared by the configuration's input convention.
    target : (P, P, C) uint8
        Channels of the preset, 255 = 1.
    """
    first = source.mixture.draw(rng)
    scene = source.load(first)
    if not config.predicts_instances and scene.image is not None:
        return plain.mask_patch(scene, config, rng)
    for _ in range(4):
        part, view = views.random_view(scene, config.patch_px, rng)
        labels = view.nearest(part.instances)
        if (labels > 0).mean() > 0.004 or rng.random() < 0.1:
            break
        # Nothing to see: try elsewhere, so that few patches are empty.
        scene = source.load(source.mixture.draw_beside(first, rng))
    if part.layers is not None:
        warped = view.layers(part.layers)
        look = appearance.random_look(rng, modality=part.modality)
        drawn = appearance.draw(warped, look, rng)
        image = np.rint(drawn * 255.0).astype(np.uint8)
    else:
        assert part.image is not None  # a scene has layers or an image
        image = plain.degraded(view.smooth(part.image), rng)
    annotated, over = rng.random() < 0.4, rng.random() < 0.5
    if annotated and not over:
        # As where letters and boxes take so much of an image that they set its percentiles.
        image, labels = overlays.burn_overlays(image, labels, rng)
    image = _normalised(image, config.convention, rng)
    if annotated and over:
        # As where they are a small part of it.
        image, labels = overlays.burn_overlays(image, labels, rng)
    # A mirrored rod is bent and a mirrored sphere a lens: the picture goes on, the lesson does not.
    return image, targets.targets_of(config, labels, view.inside(part.instances.shape))


def drawing_threads() -> int:
    """Threads that draw patches: one a core, and two where there is one."""
    return max(2, len(os.sched_getaffinity(0)))


class PatchStream:
    """Mini-batches from ``first_step`` on, drawn ahead by background threads.

    Parameters
    ----------
    source : SceneSource
    config : TrainingConfig
    first_step : int
        Mini-batch to begin with; those before are neither drawn nor needed.
    threads : int, optional
        Threads that draw, by default as many as there are cores; the order does not depend on them.
    """

    def __init__(
        self,
        source: SceneSource,
        config: TrainingConfig,
        first_step: int = 0,
        threads: int | None = None,
    ) -> None:
        self._source = source
        self._config = config
        self._sample = first_step * config.batch_size
        self._samples_per_block = config.patches_per_block * config.uses_per_patch
        self._pool = ThreadPoolExecutor(threads or drawing_threads(), thread_name_prefix="patch")
        self._blocks: dict[int, list[Future[Patch]]] = {}
        self._order: dict[int, NDArray[np.int64]] = {}

    def __iter__(self) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
        """Yield images (B, P, P, 1) and targets (B, P, P, C), both uint8, without end."""
        while True:
            pairs = [self._use(self._sample + i) for i in range(self._config.batch_size)]
            self._sample += self._config.batch_size
            yield (
                np.stack([image for image, _ in pairs])[..., None],
                np.stack([target for _, target in pairs]),
            )

    def close(self) -> None:
        """Stop drawing; waits for the patches that are being drawn."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _use(self, sample: int) -> Patch:
        block, place = divmod(sample, self._samples_per_block)
        self._begin(block)
        # The next block is drawn while this one is used.
        self._begin(block + 1)
        for old in [number for number in self._blocks if number < block]:
            del self._blocks[old], self._order[old]
        patch = int(self._order[block][place])
        image, target = self._blocks[block][patch].result()
        rng = np.random.default_rng([self._config.seed, _USE_STREAM, sample])
        return _turned_and_relit(image, target, rng)

    def _begin(self, block: int) -> None:
        if block in self._blocks:
            return
        size = self._config.patches_per_block
        order = np.repeat(np.arange(size), self._config.uses_per_patch)
        np.random.default_rng([self._config.seed, _ORDER_STREAM, block]).shuffle(order)
        self._order[block] = order
        # Drawn in the order of first use, so that the first mini-batch need not wait for all.
        _, first = np.unique(order, return_index=True)
        futures: dict[int, Future[Patch]] = {}
        for patch in np.argsort(first):
            futures[int(patch)] = self._pool.submit(self._draw, block * size + int(patch))
        self._blocks[block] = [futures[patch] for patch in range(size)]

    def _draw(self, number: int) -> Patch:
        rng = np.random.default_rng([self._config.seed, _PATCH_STREAM, number])
        return draw_patch(self._source, self._config, rng)


def _turned_and_relit(
    image: NDArray[np.uint8], target: NDArray[np.uint8], rng: np.random.Generator
) -> Patch:
    """M14 on each use of a patch: rotations by 90 degrees, flips, intensity."""
    turns, flip = int(rng.integers(4)), rng.random() < 0.5
    image, target = np.rot90(image, turns), np.rot90(target, turns)
    if flip:
        image, target = image[:, ::-1], target[:, ::-1]
    levels = np.arange(256, dtype=np.float32) * rng.uniform(0.85, 1.15) + rng.uniform(-13, 13)
    table = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
    return table[image], np.ascontiguousarray(target)


def _normalised(
    image: NDArray[np.uint8], convention: InputConvention, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """The input convention, with percentiles that vary.

    A patch is a small part of a micrograph, whose percentiles may lie elsewhere.
    """
    varied = InputConvention(
        low_percentile=rng.uniform(0.0, 2.0 * convention.low_percentile + 0.01),
        high_percentile=100.0 - (100.0 - convention.high_percentile) * rng.uniform(0.1, 3.0),
        white_level=convention.white_level,
        clahe_clip_limit=convention.clahe_clip_limit,
        clahe_tile_px=convention.clahe_tile_px,
    )
    result = to_network_input(image, varied)
    if rng.random() < 0.3:
        powers = np.linspace(0.0, 1.0, 256) ** rng.uniform(0.6, 1.6)
        result = np.rint(255.0 * powers).astype(np.uint8)[result]
    return result


def _bytes_of(scene: views.Scene) -> int:
    parts: list[Any] = [scene.image, scene.mask]
    if scene.layers is None:
        parts.append(scene.instances)
    else:
        parts += [getattr(scene.layers, item.name) for item in fields(scene.layers)]
    return sum(part.nbytes for part in parts if isinstance(part, np.ndarray))
