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


def mean_arrays(parts: Iterable[bytes]) -> bytes:
    """The mean of several networks of one configuration, array by array, as npz bytes.

    Epochs at the end of a training lie around a minimum, and their mean nearer to its middle than
    each: it generalises better (stochastic weight averaging, Izmailov et al. 2018,
    arXiv:1803.05407). The statistics of batch normalisation are averaged with them.

    Parameters
    ----------
    parts : iterable of bytes
        From :func:`arrays_bytes`; one at a time is in memory, so read them when asked for.

    Returns
    -------
    bytes
        In the types of the first.
    """
    remaining = iter(parts)
    first = _arrays(next(remaining))
    sums = [array.astype(np.float64) for array in first]
    count = 1
    for data in remaining:
        for total, array in zip(sums, _arrays(data), strict=True):
            np.add(total, array, out=total)
        count += 1
    return arrays_bytes(
        [(total / count).astype(array.dtype) for total, array in zip(sums, first, strict=True)]
    )


def _arrays(data: bytes) -> list[NDArray[Any]]:
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        return [archive[name] for name in sorted(archive.files)]


def all_finite(arrays: Iterable[NDArray[Any]]) -> bool:
    """Whether no value is NaN or infinite."""
    return all(bool(np.isfinite(array).all()) for array in arrays)
