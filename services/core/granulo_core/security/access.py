# SPDX-License-Identifier: GPL-3.0-or-later
"""Who a caller is, and which role each method of the contract needs."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum

from granulo_core.errors import GranuloError, Reason

TENANT = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")


class Role(IntEnum):
    """Each role may do what the ones before it may."""

    NONE = 0
    """Nobody has to say who they are."""
    READ = 1
    SUBMIT = 2
    """Starts work and uploads."""
    ADMIN = 3
    """Deletes, and decides which model is served."""


@dataclass(frozen=True)
class Identity:
    """A caller."""

    subject: str
    role: Role
    tenant: str = ""
    """Its store is ``tenants/<tenant>/`` of the root's; empty is the root itself."""


ANYBODY = Identity("anybody", Role.ADMIN)
"""The caller where no authentication is set up."""

_READ, _SUBMIT, _ADMIN = Role.READ, Role.SUBMIT, Role.ADMIN
_SERVICES: Mapping[str, Mapping[str, Role]] = {
    "google.longrunning.Operations": {
        "ListOperations": _READ,
        "GetOperation": _READ,
        "WaitOperation": _READ,
        "CancelOperation": _SUBMIT,
        "DeleteOperation": _ADMIN,
    },
    "granulo.operations.v1.OperationWatchService": {"WatchOperation": _READ},
    "granulo.artifact.v1.ArtifactService": {
        "UploadArtifact": _SUBMIT,
        "CreateUploadUrl": _SUBMIT,
        "FinishUpload": _SUBMIT,
        "DownloadArtifact": _READ,
        "CreateDownloadUrl": _READ,
    },
    "granulo.render.v1.RenderService": {
        "ListPresets": _READ,
        "CheckRecipe": _READ,
        "GetDataset": _READ,
        "ListDatasets": _READ,
        "PreviewRecipe": _SUBMIT,
        "CompareRecipe": _SUBMIT,
        "CreateDataset": _SUBMIT,
        "DeleteDataset": _ADMIN,
    },
    "granulo.trainer.v1.TrainerService": {
        "GetModel": _READ,
        "ListModels": _READ,
        "GetModelVersion": _READ,
        "ListModelVersions": _READ,
        "ListCheckpoints": _READ,
        "RankCheckpoints": _READ,
        "GetAnnotatedDataset": _READ,
        "ListAnnotatedDatasets": _READ,
        "GetCrossValidation": _READ,
        "CreateModelVersion": _SUBMIT,
        "SelectCheckpoint": _SUBMIT,
        "ExportModelVersion": _SUBMIT,
        "ImportDataset": _SUBMIT,
        "CrossValidate": _SUBMIT,
        "PromoteModelVersion": _ADMIN,
        "RollbackModel": _ADMIN,
    },
    "granulo.segmenter.v1.SegmenterService": {
        "GetSegmentation": _READ,
        "ListSegmentations": _READ,
        "SegmentImage": _SUBMIT,
        "SegmentImages": _SUBMIT,
        "CreateSegmentation": _SUBMIT,
    },
    "granulo.analyzer.v1.AnalyzerService": {
        "GetAnalysis": _READ,
        "ListAnalyses": _READ,
        "ListParticles": _READ,
        "GetImageSetComparison": _READ,
        "CreateAnalysis": _SUBMIT,
        "EvaluateSegmentation": _SUBMIT,
        "CompareImageSets": _SUBMIT,
        "ScreenMicrographs": _SUBMIT,
    },
    # A watch holds a place for streams, which is nothing to give to everybody.
    "grpc.health.v1.Health": {"Check": Role.NONE, "List": Role.NONE, "Watch": _READ},
    "grpc.reflection.v1alpha.ServerReflection": {"ServerReflectionInfo": _READ},
}
METHODS: Mapping[str, Role] = {
    f"/{service}/{method}": role
    for service, methods in _SERVICES.items()
    for method, role in methods.items()
}
"""Least role by full method name; a method that is missing here is for nobody."""


def highest(names: Iterable[str]) -> Role:
    """The most that a list of role names allows; other names count for nothing."""
    known = {role.name.lower(): role for role in Role}
    return max((known[name] for name in names if name in known), default=Role.NONE)


def check_allowed(identity: Identity, method: str) -> None:
    """Raise ROLE_MISSING where a caller may not call a method."""
    needed = METHODS.get(method)
    if needed is None or identity.role < needed:
        word = needed.name.lower() if needed is not None else "which nobody has"
        raise GranuloError(
            Reason.ROLE_MISSING,
            f"{identity.subject} may not call {method.rpartition('/')[2]}: it needs the role "
            f"{word}. Ask who manages access to this server for it.",
            metadata={"method": method, "role": word},
        )
