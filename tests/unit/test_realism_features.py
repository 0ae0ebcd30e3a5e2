# SPDX-License-Identifier: GPL-3.0-or-later
"""What VGG16 is fed, and where it is missing."""

import numpy as np
import pytest

from granulo_analyzer import features
from granulo_core.errors import GranuloError, Reason


def test_without_tensorflow_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    features.check_installed()
    monkeypatch.setattr(features, "find_spec", lambda name: None)
    with pytest.raises(GranuloError, match=r"granulo-analyzer\[realism\]") as caught:
        features.check_installed()
    assert caught.value.reason is Reason.EXTRA_NOT_INSTALLED


def test_patches_become_what_keras_makes_of_grey_pictures() -> None:
    patches = np.random.default_rng(0).random((3, 224, 224)).astype(np.float32)
    prepared = features._prepared(patches)
    assert prepared.shape == (3, 224, 224, 3)
    # Blue, green and red of ImageNet's mean, in this order.
    for channel, mean in enumerate((103.939, 116.779, 123.68)):
        np.testing.assert_allclose(prepared[..., channel], 255 * patches - mean, rtol=1e-4)
    assert features._prepared(patches[:, :144, :144]).shape == (3, 224, 224, 3)
