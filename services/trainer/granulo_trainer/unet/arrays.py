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
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        names = sorted(archive.files)
        if len(names) != len(variables):
            raise ValueError(
                f"the checkpoint holds {len(names)} arrays and the network has {len(variables)}: "
                "it belongs to another configuration"
            )
        for name, variable in zip(names, variables, strict=True):
            variable.assign(archive[name])


def all_finite(arrays: Iterable[NDArray[Any]]) -> bool:
    """Whether no value is NaN or infinite."""
    return all(bool(np.isfinite(array).all()) for array in arrays)
