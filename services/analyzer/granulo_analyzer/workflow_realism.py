# SPDX-License-Identifier: GPL-3.0-or-later
"""CompareImageSets: describe every image, compare the sets, commit the manifest last."""

import math
from collections import Counter
from dataclasses import dataclass, replace

from granulo.analyzer.v1 import analyzer_service_pb2 as pb
from granulo_analyzer import convert_realism, features, inputs
from granulo_analyzer.domain.jobs import StoredFile
from granulo_analyzer.domain.realism.jobs import (
    CompareJob,
    ComparisonSettings,
    DescribedImage,
    DescribeJob,
    ImageOfSet,
)
from granulo_analyzer.domain.realism.patches import FEWEST_PATCHES, count_patches
from granulo_analyzer.settings import AnalyzerSettings
from granulo_core.engine.port import Resources, Task
from granulo_core.errors import FieldViolation, GranuloError, Reason, invalid_fields
from granulo_core.imaging.normalise import to_unit
from granulo_core.imaging.profiles import line_profile
from granulo_core.imaging.reading.isolated import Read
from granulo_core.operations.receipts import Receipt
from granulo_core.operations.runner import OperationContext, Workflow
from granulo_core.store import manifest as manifests
from granulo_core.store.manifest import ManifestInput
from granulo_core.store.port import ObjectStore

KIND = "CompareImageSets"
COLLECTION = "comparisons"
_TIMEOUT_S = 3600.0
_VGG16_MIB = 3000


@dataclass(frozen=True)
class Plan:
    """What a comparison is made of."""

    target: str
    """``comparisons/<id>``; the id follows from the content of the inputs."""
    images: tuple[ImageOfSet, ...]
    settings: ComparisonSettings

    @property
    def files(self) -> tuple[StoredFile, ...]:
        """All that is read."""
        weights = self.settings.vgg16_weights
        return (*(image.file for image in self.images), *([weights] if weights else []))


def plan(
    store: ObjectStore, request: pb.CompareImageSetsRequest, settings: AnalyzerSettings
) -> Plan:
    """Resolve a request.

    Raises
    ------
    GranuloError
        FIELD_INVALID for unusable settings and files that are not there, EXTRA_NOT_INSTALLED for
        features that this server has not.
    """
    found = convert_realism.settings(request)
    images = tuple(
        replace(image, file=inputs.located(store, image.file, image.field))
        for image in convert_realism.images(request, settings.max_images)
    )
    if found.vgg16_weights is not None:
        features.check_installed()
        weights = inputs.located(store, found.vgg16_weights, "vgg16_weights")
        found = replace(found, vgg16_weights=weights)
    # Names stand in the table and on the profile.
    parts = [f"{image.field} {image.file.digest} {image.file.name}" for image in images]
    known = replace(found, vgg16_weights=None)
    weighed = found.vgg16_weights.digest if found.vgg16_weights else ""
    target = f"{COLLECTION}/{manifests.content_id('cmp', *parts, repr(known), weighed)}"
    return Plan(target, images, found)


def check_files(store: ObjectStore, plan: Plan, settings: AnalyzerSettings, read: Read) -> None:
    """Read every file once before any work, so that a bad one is refused at once.

    Raises
    ------
    GranuloError
        What is wrong with the files, each with its field in the request.
    """
    weights = plan.settings.vgg16_weights
    if weights is not None:
        first = next(store.read_chunks(weights.key, chunk_size=len(features.HDF5_SIGNATURE)), b"")
        if first != features.HDF5_SIGNATURE:
            text = f"{weights.name} is no HDF5 file; give Keras' ImageNet weights of VGG16"
            raise invalid_fields([FieldViolation("vgg16_weights", text)])
    problems: list[GranuloError] = []
    patches: Counter[str] = Counter()
    for image in plan.images:
        try:
            patches[image.set_name] += _checked(
                store, image, plan.settings, settings.max_image_px, read
            )
        except GranuloError as error:
            problems.append(error)
    if problems:
        raise _together(problems)
    violations = [
        FieldViolation(
            name,
            f"gives {patches[name]} patches of {plan.settings.patch_px} px, of which at least "
            f"{FEWEST_PATCHES} are needed; add images, or take smaller patches (patch_px)",
        )
        for name in ("real", "synthetic")
        if patches[name] < FEWEST_PATCHES
    ]
    if violations:
        raise invalid_fields(violations)


def compare_image_sets(settings: AnalyzerSettings) -> Workflow:
    """The durable operation that compares two sets of images."""

    def run(context: OperationContext) -> pb.ImageSetComparison:
        request = context.request
        assert isinstance(request, pb.CompareImageSetsRequest)  # the runner checks the type
        if not context.store.exists(f"{context.target}/manifest.json"):
            _make(context, request, plan(context.store, request, settings), settings.max_image_px)
        return get_comparison(context.store, context.target)

    return Workflow(
        kind=KIND,
        request_type=pb.CompareImageSetsRequest,
        metadata_type=pb.CompareImageSetsMetadata,
        run=run,
    )


def get_comparison(store: ObjectStore, name: str) -> pb.ImageSetComparison:
    """A finished comparison; RESOURCE_NOT_FOUND while there is none."""
    manifest = manifests.load(store, name)
    return convert_realism.comparison(manifest, manifests.manifest_artifact(store, name))


def _checked(
    store: ObjectStore,
    image: ImageOfSet,
    settings: ComparisonSettings,
    max_px: int,
    read: Read,
) -> int:
    """Number of patches that an image gives."""
    content = inputs.read_image(store, image.file, image.field, read, max_px=max_px).content
    count = count_patches(content.shape, settings.patch_px)
    if not count:
        height, width = content.shape
        text = (
            f"{image.file.name} has {width} × {height} pixels without its data bar, too few for a "
            f"patch of {settings.patch_px} px; take smaller patches (patch_px), or leave it out"
        )
        raise GranuloError(
            Reason.IMAGE_TOO_SMALL, text, violations=(FieldViolation(image.field, text),)
        )
    if settings.line is not None and image.number == 1:
        try:
            line_profile(to_unit(content), settings.line, settings.line_width_px)
        except ValueError as error:
            text = f"{image.file.name}: {error}"
            raise invalid_fields([FieldViolation("profile", text)]) from error
    return count


def _together(problems: list[GranuloError]) -> GranuloError:
    """One error that names all of the unusable files."""
    first = problems[0]
    more = f" ({len(problems) - 1} more)" if len(problems) > 1 else ""
    return GranuloError(
        first.reason,
        f"{first.message}{more}",
        metadata=first.metadata,
        violations=[violation for problem in problems for violation in problem.violations],
    )


def _make(
    context: OperationContext, request: pb.CompareImageSetsRequest, plan: Plan, max_px: int
) -> None:
    # Receipts of an earlier attempt count by task id: another target is other work.
    mark = plan.target.rpartition("-")[2]
    whole = CompareJob(plan.target, (), plan.settings, max_px)
    resources = Resources(pool="cpu")
    if plan.settings.vgg16_weights is not None:
        # A pool of its own: processes that hold the network do nothing else.
        resources = Resources(pool="cpu-vgg16", memory_mib=_VGG16_MIB)
        check = Task(
            id=f"weights-{mark}",
            entry_point="granulo_analyzer.tasks_realism:check_weights",
            payload=whole.to_bytes(),
            resources=resources,
            timeout_s=_TIMEOUT_S,
        )
        context.run_tasks([check], unit="file")
    in_set = Counter(image.set_name for image in plan.images)
    describing = [
        Task(
            id=f"describe-{image.set_name}-{image.number:06d}-{mark}",
            entry_point="granulo_analyzer.tasks_realism:describe_image",
            payload=DescribeJob(
                plan.target,
                image,
                math.ceil(plan.settings.max_patches / in_set[image.set_name]),
                plan.settings,
                max_px,
            ).to_bytes(),
            resources=resources,
            timeout_s=_TIMEOUT_S,
        )
        for image in plan.images
    ]
    receipts = context.run_tasks(describing, unit="image")
    described = [Receipt.from_bytes(receipts[task.id]) for task in describing]
    context.progress(message="comparing the sets and drawing the map")
    images = tuple(map(_described, plan.images, described))
    comparing = Task(
        id=f"compare-{mark}",
        entry_point="granulo_analyzer.tasks_realism:compare_sets",
        payload=replace(whole, images=images).to_bytes(),
        resources=Resources(pool="cpu"),
        timeout_s=_TIMEOUT_S,
    )
    written = Receipt.from_bytes(context.run_tasks([comparing], unit="map")[comparing.id])
    context.check_cancelled()
    manifests.commit(
        context.store,
        plan.target,
        manifests.Manifest(
            resource=plan.target,
            kind="ImageSetComparison",
            objects=(*written.objects, *(item for one in described for item in one.objects)),
            inputs=tuple(ManifestInput(file.key, file.digest) for file in plan.files),
            producer=manifests.producer("analyzer", plan.settings.seed),
            request=convert_realism.request_json(request),
            facts={**written.facts, "features": plan.settings.features},
        ),
    )


def _described(image: ImageOfSet, receipt: Receipt) -> DescribedImage:
    (table,) = receipt.objects
    return DescribedImage(
        image=image,
        table=StoredFile(table.key, table.digest, ""),
        noise=receipt.facts["noise"],
        edge_width_px=receipt.facts["edge_width_px"],
    )
