# SPDX-License-Identifier: GPL-3.0-or-later
"""TensorBoard event files, one an epoch.

An epoch's file is kept with its checkpoint. So a run that was interrupted writes the epoch that it
repeats into the same place, and no scalar is there twice or missing.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import tensorflow as tf
from tensorflow.core.framework.summary_pb2 import DATA_CLASS_SCALAR, SummaryMetadata

# What `tf.summary.scalar` writes; that function itself needs the package tensorboard.
_SCALAR = SummaryMetadata(
    plugin_data=SummaryMetadata.PluginData(plugin_name="scalars"), data_class=DATA_CLASS_SCALAR
)


class EpochEvents:
    """Scalars of one epoch; use it in a ``with`` block."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="granulo-events-")
        self._writer = tf.summary.create_file_writer(self._folder.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.close()
        self._folder.cleanup()

    def add(self, group: str, values: Mapping[str, float], step: int) -> None:
        """Write values as ``<group>/<name>`` at a number of mini-batches."""
        with self._writer.as_default():
            for name, value in values.items():
                tensor = tf.constant(value, tf.float32)
                tf.summary.write(f"{group}/{name}", tensor, step=step, metadata=_SCALAR)

    def to_bytes(self) -> bytes:
        """The event file so far."""
        self._writer.flush()
        (path,) = Path(self._folder.name).iterdir()
        return path.read_bytes()
