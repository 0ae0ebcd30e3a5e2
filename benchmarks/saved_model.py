# SPDX-License-Identifier: GPL-3.0-or-later
"""A SavedModel in process, for benchmarks that segment without a model server."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from granulo_segmenter.domain.maps import PredictTiles
from granulo_segmenter.domain.model import ModelFacts


def load(folder: Path) -> tuple[ModelFacts, PredictTiles]:
    """What the segmenter must know of a SavedModel, and what predicts with it in float32."""
    facts = ModelFacts.from_json(json.loads((folder / "assets.extra" / "granulo.json").read_text()))
    # The signature lives as long as the object that it was loaded with.
    loaded = tf.saved_model.load(str(folder))

    def predict(
        tiles: Iterable[NDArray[np.uint8]], names: Sequence[str]
    ) -> Iterator[Mapping[str, NDArray[Any]]]:
        for tile in tiles:
            image = tf.constant(np.asarray(tile)[None, ..., None])
            outputs = loaded.signatures["serving_default"](image=image)
            yield {name: outputs[name].numpy()[0] for name in names}

    return facts, predict
