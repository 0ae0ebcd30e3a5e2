# SPDX-License-Identifier: GPL-3.0-or-later
"""Pages of the particle table."""

import csv
from functools import lru_cache

from granulo.analyzer.v1 import analyzer_service_pb2 as pb
from granulo_analyzer import convert
from granulo_core.rpc.paging import paginate
from granulo_core.store import manifest as manifests
from granulo_core.store import open_store
from granulo_core.store.port import ObjectStore


def list_particles(
    store: ObjectStore, request: pb.ListParticlesRequest
) -> pb.ListParticlesResponse:
    """One page of the particles of an analysis.

    Raises
    ------
    GranuloError
        RESOURCE_NOT_FOUND for an analysis that does not exist, FIELD_INVALID for an unusable page.
    """
    name = convert.analysis_name(request.parent, "parent")
    table = manifests.load(store, name).object("particles.csv")
    header, *lines = _lines(store.url, table.key, table.digest)
    page, token = paginate(lines, request.page_size, request.page_token)
    rows = csv.DictReader([header, *page])
    return pb.ListParticlesResponse(
        particles=[convert.particle(name, row) for row in rows], next_page_token=token
    )


# Readers page through one table after another; names hold no line breaks, so that a line is a row.
@lru_cache(maxsize=2)
def _lines(store_url: str, key: str, digest: str) -> tuple[str, ...]:
    return tuple(open_store(store_url).get(key, digest).decode().split("\n")[:-1])
