# SPDX-License-Identifier: GPL-3.0-or-later
"""What a version is made of, kept beside it while it has no manifest yet.

A training that fails leaves checkpoints and no manifest: ``job.json`` still says which network
their weights belong to.
"""

from dataclasses import replace

from granulo_core.store import manifest as manifests
from granulo_core.store.port import ObjectStore, StoredObject
from granulo_trainer import registry
from granulo_trainer.domain.config import TrainingConfig
from granulo_trainer.domain.job import TrainingJob


def keep_job(store: ObjectStore, version: registry.VersionName, job: TrainingJob) -> StoredObject:
    """Keep the job that makes ``version``, or that made the checkpoint in it."""
    own = replace(job, version=str(version))
    return store.put(_key(version), own.to_bytes(), "application/json")


def kept_job(store: ObjectStore, version: registry.VersionName) -> TrainingJob:
    """The job of a version.

    Raises
    ------
    GranuloError
        RESOURCE_NOT_FOUND where there is neither a job nor a manifest, DIGEST_MISMATCH for a
        damaged manifest.
    """
    if store.exists(_key(version)):
        return TrainingJob.from_bytes(store.get(_key(version)))
    # Versions of before jobs were kept.
    facts = manifests.load(store, str(version)).facts
    return TrainingJob(
        version=str(version),
        datasets=tuple(facts["datasets"]),
        config=TrainingConfig.from_json(dict(facts["config"])),
        validation=(),
    )


def _key(version: registry.VersionName) -> str:
    return f"{version}/job.json"
