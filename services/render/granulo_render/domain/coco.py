# SPDX-License-Identifier: GPL-3.0-or-later
"""One image's truth as a COCO document."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from granulo_core.imaging.exports import (
    CocoParticle,
    coco_annotations,
    coco_categories,
    coco_document,
    coco_image,
)
from granulo_render.domain.labels import Truth
from granulo_render.domain.recipe import ParticleClass


def coco_scene(
    known: Truth, classes: Sequence[ParticleClass], file_name: str, pixel_size_nm: float
) -> dict[str, Any]:
    """Describe one image and its labelled particles.

    Parameters
    ----------
    known : Truth
    classes : sequence of ParticleClass
        Those of the recipe; class ``k`` is category ``k + 1``.
    file_name : str
        Of the micrograph.
    pixel_size_nm : float

    Returns
    -------
    dict
        ``images``, ``annotations``, ``categories`` and ``info``; the image's id is 1, the
        annotations' ids are those in the labels.
    """
    order = known.order
    labelled = {item.id for item in known.particles if item.labelled}
    above: dict[int, list[int]] = {}
    for over, under in zip((order.over + 1).tolist(), (order.under + 1).tolist(), strict=True):
        if over in labelled:
            above.setdefault(under, []).append(over)
    particles = [
        CocoParticle(
            id=item.id,
            category=item.kind + 1,
            amodal_pixels=known.amodal.of(item.id - 1),
            visible_fraction=item.visible_fraction,
            occlusion_order=item.order,
            occluded_by=tuple(sorted(above.get(item.id, []))),
        )
        for item in known.particles
        if item.labelled
    ]
    height, width = np.shape(known.labels)
    return coco_document(
        [coco_image(1, file_name, (height, width), pixel_size_nm)],
        coco_annotations(1, known.labels, particles),
        coco_categories([kind.label or str(k) for k, kind in enumerate(classes)]),
        {"description": "Rendered micrographs with error-free labels", "contributor": "Granulo"},
    )
