# SPDX-License-Identifier: GPL-3.0-or-later
"""Ranks the checkpoints of a version, and makes the page from which a person picks one."""

import hashlib
from collections.abc import Sequence

import numpy as np

from granulo.trainer.v1 import trainer_service_pb2 as pb
from granulo_core.errors import GranuloError, Reason
from granulo_core.store.port import ObjectStore, StoredObject
from granulo_trainer import registry, selections
from granulo_trainer.checkpoints import validation_images
from granulo_trainer.domain.outlines import encode_outlines
from granulo_trainer.domain.pictures import decode_png
from granulo_trainer.domain.selection import (
    FIGURES,
    Criterion,
    Ranked,
    default_criterion,
    rank,
)
from granulo_trainer.page.html import Page, PageEpoch, PageImage, render_page

_STATES = {
    registry.VersionState.CREATING: "still training",
    registry.VersionState.ACTIVE: "finished",
    registry.VersionState.FAILED: "failed or cancelled",
}


def rank_checkpoints(
    store: ObjectStore, request: pb.RankCheckpointsRequest
) -> pb.RankCheckpointsResponse:
    """Order what is stored; works while the version trains.

    Raises
    ------
    GranuloError
        FIELD_INVALID for a criterion that nothing can be ranked by, RESOURCE_NOT_FOUND for an
        unknown version, RESOURCE_NOT_READY where a page was asked for and there is nothing to show.
    """
    wanted = selections.wanted_criterion(request)
    version = registry.VersionName.parse(request.parent)
    records = {item.epoch: item for item in registry.list_checkpoints(store, version)}
    history = {epoch: item.figures for epoch, item in records.items()}
    criterion = wanted or default_criterion(history)
    ranked = rank(history, criterion)
    page = _page(store, version, criterion, ranked, records) if request.page else None
    return selections.ranking(version, criterion, ranked, records, page)


def _page(
    store: ObjectStore,
    version: registry.VersionName,
    criterion: Criterion,
    ranked: Sequence[Ranked],
    records: dict[int, registry.CheckpointRecord],
) -> StoredObject:
    images = [
        PageImage(name, decode_png(store.get(stored.key)))
        for name, stored in validation_images(store, version)
    ]
    if not ranked or not images:
        missing = (
            "has finished no epoch yet; ask again after its first"
            if images
            else "kept no validation image; train with validation images to see predictions"
        )
        raise GranuloError(
            Reason.RESOURCE_NOT_READY,
            f"There is no page to make: {version} {missing}.",
            metadata={"name": str(version)},
        )
    title = "epoch, latest first" if criterion is Criterion.LAST else FIGURES[criterion][1]
    html = render_page(
        Page(
            version=str(version),
            state=_STATES[registry.state_of(store, version)],
            criterion=title,
            ranked_figure="" if criterion is Criterion.LAST else FIGURES[criterion][0],
            images=images,
            epochs=[_page_epoch(store, records[item.epoch], item) for item in ranked],
        )
    )
    data = html.encode()
    key = f"uploads/{hashlib.sha256(data).hexdigest()}"
    return store.put(key, data, "text/html")


def _page_epoch(store: ObjectStore, record: registry.CheckpointRecord, ranked: Ranked) -> PageEpoch:
    found = [decode_png(store.get(item.key, item.digest)) for item in record.predictions]
    return PageEpoch(
        epoch=record.epoch,
        figures=record.figures,
        outlines=[encode_outlines(labels) for labels in found],
        counts=[int(np.count_nonzero(np.bincount(labels.ravel())[1:])) for labels in found],
        explanation=ranked.explanation,
    )
