# SPDX-License-Identifier: GPL-3.0-or-later
"""VGG16 as a describer of patches (M11): the one place of the analyzer that imports TensorFlow.

Simonyan and Zisserman, "Very deep convolutional networks for large-scale image recognition", ICLR
2015. Only worker processes get here: the network takes 0.6 GB and seconds to load.
"""

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from granulo_core.errors import FieldViolation, GranuloError, Reason, invalid_fields
from granulo_core.store import open_store

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_SIDE_PX = 224
_BATCH = 16
# Of ImageNet, blue, green and red (Keras' "caffe" way of preparing images).
_MEAN_BGR = np.array([103.939, 116.779, 123.68], dtype=np.float32)


def check_installed() -> None:
    """Raise EXTRA_NOT_INSTALLED where there is no TensorFlow; imports nothing."""
    if find_spec("tensorflow") is None:
        raise GranuloError(
            Reason.EXTRA_NOT_INSTALLED,
            "the analyzer is installed without its extra `realism`, which runs VGG16. Install it "
            "where the analyzer runs, e.g. `pip install 'granulo-analyzer[realism]'`, or leave the "
            "features out for the built-in ones.",
            metadata={"extra": "realism"},
        )


def check_weights(store_url: str, key: str, digest: str, name: str) -> None:
    """Load the network, which the process then keeps.

    Raises
    ------
    GranuloError
        FIELD_INVALID where the file holds no weights of VGG16 with its top.
    """
    try:
        _network(store_url, key, digest)
    except (ValueError, OSError, KeyError, TypeError, AttributeError, IndexError) as error:
        text = (
            f"{name} holds no ImageNet weights of VGG16 with its top ({_first_line(error)}); give "
            "Keras' vgg16_weights_tf_dim_ordering_tf_kernels.h5, or leave out the features"
        )
        raise invalid_fields([FieldViolation("vgg16_weights", text)]) from error


def vgg16_features(
    patches: NDArray[np.float32], store_url: str, key: str, digest: str
) -> NDArray[np.float64]:
    """Describe patches by the outputs of VGG16 before the softmax.

    Parameters
    ----------
    patches : (n, S, S) float32
        Grey levels 0 to 1; scaled to 224 px and given three equal channels.
    store_url, key, digest : str
        Where the weights lie.

    Returns
    -------
    (n, 1000) float64
    """
    model = _network(store_url, key, digest)
    parts = [
        model.predict_on_batch(_prepared(patches[first : first + _BATCH]))
        for first in range(0, len(patches), _BATCH)
    ]
    outputs: NDArray[np.float64] = np.concatenate(parts).astype(np.float64)
    return outputs


def _prepared(patches: NDArray[np.float32]) -> NDArray[np.float32]:
    size = (_SIDE_PX, _SIDE_PX)
    large = np.stack([cv2.resize(patch, size, interpolation=cv2.INTER_LINEAR) for patch in patches])
    prepared: NDArray[np.float32] = 255.0 * large[..., None].astype(np.float32) - _MEAN_BGR
    return prepared


@lru_cache(maxsize=1)
def _network(store_url: str, key: str, digest: str) -> Any:
    from keras.applications import VGG16

    model = VGG16(weights=None, classifier_activation=None)
    with TemporaryDirectory() as folder:
        # Keras tells the format in which the ImageNet weights come by this ending.
        path = Path(folder) / "vgg16.h5"
        open_store(store_url).get_file(key, path, digest or None)
        model.load_weights(path)
    return model


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
