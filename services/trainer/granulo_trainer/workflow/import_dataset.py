# SPDX-License-Identifier: GPL-3.0-or-later
"""Takes in annotated micrographs, and shows those that were taken in."""

from threading import Lock

from google.protobuf.json_format import MessageToDict

from granulo.trainer.v1 import trainer_service_pb2 as pb
from granulo_core.rpc.paging import paginate
from granulo_core.store import manifest as manifests
from granulo_core.store.port import ObjectStore
from granulo_trainer import annotated, convert_annotated
from granulo_trainer.settings import TrainerSettings

# The trainer's prefixes have one live owner: a lock in this process is enough.
_writing = Lock()


def import_dataset(
    store: ObjectStore, request: pb.ImportDatasetRequest, settings: TrainerSettings
) -> pb.AnnotatedDataset:
    """Check all pairs, then write them and their manifest.

    Returns
    -------
    AnnotatedDataset
        An equal import meets the same dataset. With ``validate_only`` it has no manifest.

    Raises
    ------
    GranuloError
        FIELD_INVALID with everything that is wrong; RESOURCE_EXISTS where the id belongs to other
        content; DIGEST_MISMATCH for damaged uploads.
    """
    plan = convert_annotated.import_plan(request, settings.max_annotated_images)
    plan = annotated.with_digests(store, plan)
    if annotated.find(store, plan) is None:
        images = annotated.check(store, plan, settings.max_image_px)
        if request.validate_only:
            return convert_annotated.checked_dataset(plan, images)
        values = MessageToDict(request, preserving_proto_field_name=True)
        with _writing:
            if annotated.find(store, plan) is None:
                objects = annotated.write(store, plan, settings.max_image_px)
                annotated.commit(store, plan, images, objects, values)
    return get_dataset(store, annotated.resource_name(plan))


def get_dataset(store: ObjectStore, name: str) -> pb.AnnotatedDataset:
    """A dataset by name; RESOURCE_NOT_FOUND where there is none."""
    name = convert_annotated.dataset_name(name)
    manifest = manifests.load(store, name)
    return convert_annotated.dataset(manifest, manifests.manifest_artifact(store, name))


def list_datasets(
    store: ObjectStore, request: pb.ListAnnotatedDatasetsRequest
) -> pb.ListAnnotatedDatasetsResponse:
    """A page of datasets, without their images."""
    names = list(manifests.list_resources(store, annotated.COLLECTION))
    page, token = paginate(names, request.page_size, request.page_token)
    found = [
        convert_annotated.dataset(
            manifests.load(store, name),
            manifests.manifest_artifact(store, name),
            with_images=False,
        )
        for name in page
    ]
    return pb.ListAnnotatedDatasetsResponse(datasets=found, next_page_token=token)
