# SPDX-License-Identifier: GPL-3.0-or-later
"""The model sync over a real S3 service: whole versions only, and no damaged ones."""

import json
from pathlib import Path

from granulo_core.store import ObjectStore
from granulo_segmenter.predictor.sync import ModelSync


def promote(store: ObjectStore, version: int, weights: bytes) -> None:
    prefix = f"serving/default/{version}"
    stored = [
        store.put(f"{prefix}/saved_model.pb", b"graph", "x/y"),
        store.put(f"{prefix}/variables/weights", weights, "x/y"),
    ]
    objects = [{"key": item.key, "digest": item.digest} for item in stored]
    reference = json.dumps({"version": version, "objects": objects}).encode()
    store.put("refs/models/default.json", reference, "application/json")


def test_versions_come_whole_out_of_s3_and_damaged_ones_stay_there(
    s3_store: ObjectStore, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    sync = ModelSync(s3_store, root)
    promote(s3_store, 1, b"first" * 100_000)
    assert sync.round().added == ("default/1",)
    assert (root / "default/1/variables/weights").read_bytes() == b"first" * 100_000
    promote(s3_store, 2, b"second")
    s3_store.put("serving/default/2/variables/weights", b"damaged", "x/y")
    report = sync.round()
    assert "default/2" in report.failed[0]
    assert not (root / "default" / "2").exists()
    assert (root / "default" / "1").exists()
