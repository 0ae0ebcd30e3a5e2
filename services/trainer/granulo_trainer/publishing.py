# SPDX-License-Identifier: GPL-3.0-or-later
"""Puts a version's model card and its picture beside the SavedModel."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from granulo_core.imaging.instances import InstanceParams
from granulo_core.store import manifest as manifests
from granulo_core.store.port import ObjectStore, StoredObject
from granulo_trainer import lineage
from granulo_trainer.card import NAME, PICTURE_NAME, CardFacts, write_card
from granulo_trainer.domain.config import TrainingConfig
from granulo_trainer.domain.contact_sheet import contact_sheet
from granulo_trainer.domain.job import TrainingJob
from granulo_trainer.domain.tuning import Tuning
from granulo_trainer.unet import views

_PAPER_ZOOM = (0.8, 1.25)
"""By which the paper's patches are enlarged (M14)."""


@dataclass(frozen=True)
class ExportedNetwork:
    """What is known of a version once its SavedModel is written."""

    epoch: int
    chosen: str
    """One sentence: how the epoch was chosen."""
    figures: Mapping[str, float]
    """Of that epoch."""
    precision: str
    """What the training computed in."""
    instances: InstanceParams
    tuning: Tuning | None
    parameter_count: int
    weights_digest: str
    outputs: Sequence[str]

    def to_json(self) -> dict[str, Any]:
        """Facts of the version's manifest."""
        return {
            "epoch": self.epoch,
            "figures": dict(self.figures),
            "precision": self.precision,
            "instances": self.instances.to_json(),
            "tuning": self.tuning.to_json() if self.tuning else None,
            "parameter_count": self.parameter_count,
            "weights_digest": self.weights_digest,
        }


def put_card(
    store: ObjectStore, job: TrainingJob, exported: ExportedNetwork, licence: str
) -> tuple[StoredObject, ...]:
    """Write ``MODEL_CARD.md``, and ``training_data.png`` where there are renders to show.

    Parameters
    ----------
    store : ObjectStore
    job : TrainingJob
    exported : ExportedNetwork
    licence : str
        SPDX expression for the weights.

    Returns
    -------
    tuple of StoredObject
    """
    shown = lineage.pictures(store, job.datasets)
    stored: tuple[StoredObject, ...] = ()
    if shown.examples:
        sheet = contact_sheet(shown.examples)
        stored = (store.put(f"{job.version}/{PICTURE_NAME}", sheet, "image/png"),)
    base = job.base_version
    facts = CardFacts(
        version=job.version,
        config=job.config,
        sources=lineage.sources(store, job.datasets),
        trained_px=_trained_px(job.config, shown.diameters_px),
        base_version=base,
        base_digest=manifests.manifest_artifact(store, base).digest if base else "",
        labelled=sum(pair.labels is not None for pair in job.validation),
        producer=manifests.producer("trainer", job.config.seed),
        licence=licence,
        has_picture=bool(shown.examples),
        **vars(exported),
    )
    text = write_card(facts).encode()
    return (*stored, store.put(f"{job.version}/{NAME}", text, "text/markdown"))


def _trained_px(
    config: TrainingConfig, diameters_px: Sequence[float]
) -> tuple[float, float] | None:
    """Median diameters that random views make of those in the datasets."""
    if not diameters_px:
        return None
    smallest, largest = min(diameters_px), max(diameters_px)
    if not config.predicts_instances:
        return smallest * _PAPER_ZOOM[0], largest * _PAPER_ZOOM[1]
    return (
        max(views.MIN_DIAMETER_PX, smallest * views.SCALE_LIMITS[0]),
        min(views.MAX_DIAMETER_PX, largest * views.SCALE_LIMITS[1]),
    )
