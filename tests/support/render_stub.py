# SPDX-License-Identifier: GPL-3.0-or-later
"""A small server of recipes, previews, comparisons and datasets, for the command's tests."""
# ruff: noqa: N802 (methods have the names of the RPCs)

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import grpc
from google.longrunning import operations_pb2
from google.protobuf import json_format
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from granulo.artifact.v1 import artifact_service_pb2 as artifact_pb
from granulo.artifact.v1 import artifact_service_pb2_grpc as artifact_grpc
from granulo.render.v1 import recipe_pb2
from granulo.render.v1 import render_service_pb2 as render_pb
from granulo.render.v1 import render_service_pb2_grpc as render_grpc
from granulo.type.v1 import artifact_pb2, progress_pb2

PNG = b"\x89PNG sheet"


RECIPE = {
    "label": "dots",
    "classes": [{"sphere": {}, "diameter_nm": {"value": 80}}],
    "imaging": {"pixel_size_nm": {"value": 4}},
}


DATASET = "datasets/ds-1"


SCENES = 3


class RenderStub(render_grpc.RenderServiceServicer, artifact_grpc.ArtifactServiceServicer):
    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.stored: dict[str, bytes] = {}
        self.violations: dict[str, str] = {}
        self.sheet = True
        self.busy = 0
        self.address = ""

    def ListPresets(self, request: Any, context: Any) -> render_pb.ListPresetsResponse:
        preset = render_pb.Preset(id="dots", description="Dots in a row.")
        json_format.ParseDict(RECIPE, preset.recipe)
        return render_pb.ListPresetsResponse(presets=[preset])

    def CheckRecipe(self, request: Any, context: Any) -> render_pb.CheckRecipeResponse:
        self._take(request, context)
        return render_pb.CheckRecipeResponse(
            recipe=json_format.ParseDict(RECIPE, recipe_pb2.Recipe())
        )

    def PreviewRecipe(
        self, request: Any, context: Any
    ) -> Iterator[render_pb.PreviewRecipeResponse]:
        self._take(request, context)
        for frame in range(request.frame_count):
            yield render_pb.PreviewRecipeResponse(
                image_png=b"i", labels_png=b"l", frame=frame, particle_count=10, unplaced_count=1
            )
        if self.sheet:
            yield render_pb.PreviewRecipeResponse(sheet_png=PNG)

    def CompareRecipe(
        self, request: Any, context: Any
    ) -> Iterator[render_pb.CompareRecipeResponse]:
        self._take(request, context)
        yield render_pb.CompareRecipeResponse(
            progress=progress_pb2.Progress(unit="frame", units_total=2, units_done=1)
        )
        curve = render_pb.RecipeComparison.Curve(label="rendered 1", x=[0, 1], y=[0.5, 0.25])
        if self.sheet:
            yield render_pb.CompareRecipeResponse(
                comparison=render_pb.RecipeComparison(
                    sheet_png=PNG, grey_level_distance=0.125, profiles=[curve], spectra=[curve]
                )
            )

    def CreateDataset(self, request: Any, context: Any) -> operations_pb2.Operation:
        self._take(request, context)
        dataset = render_pb.Dataset(name=DATASET, image_count=SCENES, particle_count=6)
        key = f"{DATASET}/manifest.json"
        dataset.manifest.CopyFrom(self._artifact(key))
        operation = operations_pb2.Operation(name="operations/render/1-1", done=True)
        operation.response.Pack(dataset)
        return operation

    def UploadArtifact(self, requests: Any, context: Any) -> artifact_pb.UploadArtifactResponse:
        next(requests)
        data = b"".join(message.chunk for message in requests)
        key = f"uploads/{hashlib.sha256(data).hexdigest()}"
        self.stored[key] = data
        return artifact_pb.UploadArtifactResponse(artifact=self._artifact(key))

    def DownloadArtifact(
        self, request: Any, context: Any
    ) -> Iterator[artifact_pb.DownloadArtifactResponse]:
        if self.busy:
            self.busy -= 1
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "all streams are taken")
        data = self.stored[request.uri]
        yield artifact_pb.DownloadArtifactResponse(artifact=self._artifact(request.uri), chunk=data)

    def _artifact(self, key: str) -> artifact_pb2.Artifact:
        digest = f"sha256:{hashlib.sha256(self.stored[key]).hexdigest()}"
        return artifact_pb2.Artifact(uri=key, digest=digest, size_bytes=len(self.stored[key]))

    def _take(self, request: Any, context: Any) -> None:
        self.requests.append(request)
        if self.violations:
            bad = error_details_pb2.BadRequest()
            for field, text in self.violations.items():
                bad.field_violations.add(field=field, description=text)
            status = status_pb2.Status(code=code_pb2.INVALID_ARGUMENT, message="unusable")
            status.details.add().Pack(bad)
            context.abort_with_status(rpc_status.to_status(status))

    def fill_store(self, *folders: str) -> None:
        """Store a dataset of small objects, one a scene in each folder, and its manifest."""
        for i in range(SCENES):
            for folder in folders:
                data = json.dumps(annotations_of(i)) if folder == "annotations" else f"{folder} {i}"
                ending = {"annotations": "json", "particles": "csv", "layers": "npz"}.get(folder)
                self.stored[f"{DATASET}/{folder}/{i:06d}.{ending or 'tif'}"] = data.encode()
        objects = [self._artifact(key) for key in self.stored]
        manifest = {
            "objects": [
                {"key": item.uri, "digest": item.digest, "size_bytes": item.size_bytes}
                for item in objects
            ],
            "facts": {"recipe": RECIPE},
        }
        self.stored[f"{DATASET}/manifest.json"] = json.dumps(manifest).encode()


def annotations_of(scene: int) -> dict[str, Any]:
    """COCO document of a scene with two particles, the first below the second."""
    particle = {"image_id": 7, "category_id": 1, "visible_fraction": 0.5, "iscrowd": 0}
    return {
        "info": {"description": "dots"},
        "images": [{"id": 7, "file_name": "x.tif", "width": 8, "height": 8}],
        "categories": [{"id": 1, "name": "dot"}],
        "annotations": [
            {**particle, "id": 3, "area": 10 + scene, "occluded_by": [5]},
            {**particle, "id": 5, "area": 20 + scene, "occluded_by": []},
        ],
    }
