# SPDX-License-Identifier: GPL-3.0-or-later
"""Weights and optimizer states as bytes and back, bit by bit."""

import io
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def weights_bytes(model: Any) -> bytes:
    """The network's weights as npz bytes."""
    return arrays_bytes(model.get_weights())


def load_weights(model: Any, data: bytes) -> None:
    """Put weights from :func:`weights_bytes` into a network of the same configuration."""
    load_arrays(model.weights, data)


def arrays_bytes(arrays: Sequence[NDArray[Any]]) -> bytes:
    """Arrays as npz bytes, in order."""
    buffer = io.BytesIO()
    np.savez(buffer, **{f"{i:04d}": array for i, array in enumerate(arrays)})
    return buffer.getvalue()


def load_arrays(variables: Sequence[Any], data: bytes) -> None:
    """Assign arrays from :func:`arrays_bytes` to variables; ValueError where they do not fit."""
    arrays = _arrays(data)
    if len(arrays) != len(variables):
        raise ValueError(
            f"the checkpoint holds {len(arrays)} arrays and the network has {len(variables)}: "
            "it belongs to another configuration"
        )
    for array, variable in zip(arrays, variables, strict=True):
        variable.assign(array)


def mean_arrays(parts: Sequence[bytes]) -> bytes:
    """The mean of several networks of one configuration, array by array, as npz bytes.

    Epochs at the end of a training lie around a minimum, and their mean nearer to its middle than
    each: it generalises better (stochastic weight averaging, Izmailov et al. 2018,
    arXiv:1803.05407). The statistics of batch normalisation are averaged with them.
    """
    sums = _arrays(parts[0])
    types = [array.dtype for array in sums]
    for data in parts[1:]:
        pairs = zip(sums, _arrays(data), strict=True)
        sums = [np.add(total, array, dtype=np.float64) for total, array in pairs]
    means = [total / len(parts) for total in sums]
    return arrays_bytes([mean.astype(dtype) for mean, dtype in zip(means, types, strict=True)])


def _arrays(data: bytes) -> list[NDArray[Any]]:
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        return [archive[name] for name in sorted(archive.files)]


def all_finite(arrays: Iterable[NDArray[Any]]) -> bool:
    """Whether no value is NaN or infinite."""
    return all(bool(np.isfinite(array).all()) for array in arrays)
