# SPDX-License-Identifier: GPL-3.0-or-later
"""The entry point that the engine runs: one finished version in another format."""

import tempfile
from pathlib import Path

from granulo_core.engine.port import TaskContext
from granulo_core.errors import GranuloError, Reason
from granulo_core.operations.receipts import Receipt
from granulo_core.operations.reporting import report
from granulo_core.store import manifest as manifests
from granulo_core.store import open_store
from granulo_core.telemetry.stages import Stage, stage
from granulo_trainer import registry

ONNX_NAME = "model.onnx"
_ONNX_PREFIX = "onnx"
"""Folder of a version; its content follows from the SavedModel and is no part of the manifest."""


def to_onnx(context: TaskContext, payload: bytes) -> bytes:
    """Convert a version's SavedModel to ONNX and store the file beside it.

    Parameters
    ----------
    context : TaskContext
    payload : bytes
        Name of the version.

    Returns
    -------
    bytes
        Receipt with the file.
    """
    # TensorFlow takes seconds to import and belongs to workers, not to servers.
    from granulo_trainer.unet.onnx_file import convert_saved_model

    version = registry.VersionName.parse(payload.decode())
    store = open_store(context.store_url)
    manifest = manifests.load(store, str(version))
    with tempfile.TemporaryDirectory(prefix="granulo-onnx-") as name:
        folder, target = Path(name) / "1", Path(name) / ONNX_NAME
        for relative, stored in registry.saved_model_objects(manifest):
            path = folder / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            store.get_file(stored.key, path, stored.digest)
        report(context, units_done=0.0, message="converting")
        try:
            with stage(Stage.EXPORT_ONNX):
                convert_saved_model(folder, target)
        except ImportError as error:
            raise missing_extra() from error
        key = f"{version}/{_ONNX_PREFIX}/{ONNX_NAME}"
        return Receipt(objects=(store.put_file(key, target, "application/onnx"),)).to_bytes()


def missing_extra() -> GranuloError:
    """Make the error for an installation without the converter."""
    return GranuloError(
        Reason.EXTRA_NOT_INSTALLED,
        "the trainer is installed without its extra `onnx`, which converts networks. Install it "
        "where the trainer runs, e.g. `pip install 'granulo-trainer[onnx]'`, or export as a "
        "SavedModel.",
        metadata={"extra": "onnx"},
    )
