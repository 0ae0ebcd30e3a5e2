# SPDX-License-Identifier: GPL-3.0-or-later
"""Principal components and the map of patches (M11)."""

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

EXPLAINED = 0.9
"""Share of the variance that the principal components keep (M11)."""
PERPLEXITY = 50.0
LEARNING_RATE = 10.0
ITERATIONS = 5000
_EXACT = 200
"""Up to so many points Barnes and Hut's approximation saves nothing."""


def principal_components(features: FloatArray, *, standardise: bool) -> FloatArray:
    """Project features on the components that explain 90 % of their variance.

    Parameters
    ----------
    features : (n, F) float64
    standardise : bool
        Let every feature count the same.

    Returns
    -------
    (n, K) float64

    Raises
    ------
    ValueError
        All patches are described by the same numbers.
    """
    from sklearn.decomposition import PCA

    centred = features - features.mean(axis=0)
    if standardise:
        spread = centred.std(axis=0)
        centred = centred / np.where(spread > 0, spread, 1.0)
    if np.allclose(centred, 0.0):
        raise ValueError("all patches are alike, so that there is nothing to compare")
    found: FloatArray = PCA(EXPLAINED, svd_solver="full").fit_transform(centred)
    return found


def perplexity_for(count: int, wanted: float) -> float:
    """The perplexity wanted, or less where there are few points.

    The method looks at three times as many neighbours (van der Maaten 2014, J. Mach. Learn. Res.
    15, 3221), so that it must stay below a third of the number of points.
    """
    return min(wanted, max(1.0, (count - 1) // 3))


def neighbour_map(components: FloatArray, perplexity: float, seed: int) -> FloatArray:
    """t-SNE with the paper's learning rate, iterations and squared Euclidean distances (M11).

    Parameters
    ----------
    components : (n, K) float64
    perplexity : float
        From `perplexity_for`.
    seed : int

    Returns
    -------
    (n, 2) float64
    """
    from sklearn.manifold import TSNE

    mapper = TSNE(
        perplexity=perplexity,
        learning_rate=LEARNING_RATE,
        max_iter=ITERATIONS,
        # The first two components may not exist.
        init="pca" if components.shape[1] >= 2 else "random",
        random_state=seed % 2**32,
        method="exact" if len(components) <= _EXACT else "barnes_hut",
    )
    return np.asarray(mapper.fit_transform(components), dtype=np.float64)
