# SPDX-License-Identifier: GPL-3.0-or-later
"""On what a training computes: one device, or several that share each mini-batch."""

import os
from collections.abc import Sequence
from typing import Any

import structlog
import tensorflow as tf

_log = structlog.get_logger(__name__)


def make_deterministic() -> None:
    """Let every operation of this process give the same bits each time.

    Must come before the first operation: TensorFlow fixes its threads then, and the switch cannot
    be turned back. So a deterministic training has a worker process of its own.

    Raises
    ------
    RuntimeError
        Too late: TensorFlow has begun to compute with other numbers of threads.
    """
    tf.config.experimental.enable_op_determinism()
    # Sums are split by the number of threads, and operations without an order race.
    threads = int(os.environ.get("TF_NUM_INTRAOP_THREADS") or len(os.sched_getaffinity(0)))
    threading = tf.config.threading
    if threading.get_intra_op_parallelism_threads() != threads:
        threading.set_intra_op_parallelism_threads(threads)
    if threading.get_inter_op_parallelism_threads() != 1:
        threading.set_inter_op_parallelism_threads(1)


def strategy_over(batch_size: int, devices: Sequence[str] | None = None) -> Any | None:
    """Several devices that share each mini-batch, where there are several.

    Parameters
    ----------
    batch_size : int
        Of all devices together; as many devices are used as divide it.
    devices : sequence of str, optional
        By default all GPUs.

    Returns
    -------
    tf.distribute.MirroredStrategy or None
        None: one device, where TensorFlow puts things by itself.
    """
    if devices is None:
        devices = [device.name for device in tf.config.list_logical_devices("GPU")]
    count = max((n for n in range(1, len(devices) + 1) if batch_size % n == 0), default=1)
    if count < len(devices):
        _log.warning(
            "devices left idle: their number does not divide batch_size",
            batch_size=batch_size, devices=len(devices), used=count,
        )  # fmt: skip
    return tf.distribute.MirroredStrategy(list(devices[:count])) if count > 1 else None
