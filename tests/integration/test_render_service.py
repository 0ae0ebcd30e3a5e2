# SPDX-License-Identifier: GPL-3.0-or-later
"""The render service over gRPC: datasets, resuming, previews, refusals."""

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import grpc
import numpy as np
import pytest
import trimesh
from google.longrunning import operations_pb2
from google.protobuf import any_pb2
from google.protobuf.json_format import ParseDict
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from granulo.render.v1 import recipe_pb2
from granulo.render.v1 import render_service_pb2 as pb
from granulo.render.v1 import render_service_pb2_grpc as rpc
from granulo_core.engine.local import LocalEngine
from granulo_core.operations.runner import OperationRunner
from granulo_core.rpc.serve import ServiceParts
from granulo_core.rpc.server import build_server
from granulo_core.settings import CoreSettings
from granulo_core.store import LocalStore
from granulo_core.store import manifest as manifests
from granulo_render.servicer import build


class Service:
    """A running render service and what a client needs of it."""

    def __init__(self, folder: Path, cpus: int = 2) -> None:
        self.folder = folder
        self.store = LocalStore(folder)
        self.engine = LocalEngine(cpus=cpus)
        built = build(ServiceParts(self.store, self.engine))
        self.runner: OperationRunner = built.runner
        self.server = build_server(
            [built.registration],
            runners=[built.runner],
            store=self.store,
            settings=CoreSettings(store_url=str(folder)),
        )
        self.channel = grpc.insecure_channel(self.server.start("127.0.0.1:0"))
        self.stub = rpc.RenderServiceStub(self.channel)

    def make(self, request: pb.CreateDatasetRequest) -> tuple[str, pb.Dataset]:
        """Create a dataset and wait for it."""
        operation: operations_pb2.Operation = self.stub.CreateDataset(request)
        operation = self.runner.wait(operation.name, 300)
        assert operation.done
        assert not operation.HasField("error"), operation.error
        dataset = pb.Dataset()
        packed: any_pb2.Any = operation.response
        assert packed.Unpack(dataset)
        return operation.name, dataset

    def close(self) -> None:
        self.channel.close()
        self.server.stop(0)
        self.runner.close()
        self.engine.close()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = Service(tmp_path_factory.mktemp("render") / "store")
    yield service
    service.close()


def _request(**changes: object) -> pb.CreateDatasetRequest:
    values = {"preset": "sio2", "image_count": 3, "seed": 4, "size_px": 64} | changes
    return pb.CreateDatasetRequest(dataset=pb.Dataset(**values))  # type: ignore[arg-type]


def test_a_dataset_is_made_listed_resumed_and_deleted(service: Service) -> None:
    _, dataset = service.make(_request())
    assert dataset.state == pb.Dataset.STATE_ACTIVE
    assert len(dataset.images) == len(dataset.labels) == 3
    assert dataset.size_px == 64
    again = service.stub.GetDataset(pb.GetDatasetRequest(name=dataset.name))
    assert again == dataset
    listed = service.stub.ListDatasets(pb.ListDatasetsRequest()).datasets
    assert [item.name for item in listed] == [dataset.name]
    manifests.verify(service.store, manifests.load(service.store, dataset.name))

    # As after a crash: one scene and the manifest are missing. Only that scene is made again.
    before = {p: p.stat().st_mtime_ns for p in service.folder.rglob("datasets/*/*/*")}
    lost = service.store.stat(dataset.images[1].uri)
    service.store.delete(lost.key)
    service.store.delete(f"{dataset.name}/manifest.json")
    _, repaired = service.make(_request())
    assert repaired.name == dataset.name
    assert list(repaired.images) == list(dataset.images)
    assert service.store.stat(lost.key) == lost
    renewed = {p.stem for p, time in before.items() if p.stat().st_mtime_ns != time}
    assert renewed == {"000001"}

    service.stub.DeleteDataset(pb.DeleteDatasetRequest(name=dataset.name))
    with pytest.raises(grpc.RpcError) as caught:
        service.stub.GetDataset(pb.GetDatasetRequest(name=dataset.name))
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    assert not list(service.store.list(f"{dataset.name}/"))


def test_equal_requests_meet_and_a_taken_id_is_refused(service: Service) -> None:
    request = _request(image_count=1)
    request.dataset_id = "mine"
    _, dataset = service.make(request)
    assert dataset.name == "datasets/mine"
    stamp = dataset.create_time
    _, same = service.make(request)
    assert same.create_time == stamp
    other = _request(image_count=1, seed=5)
    other.dataset_id = "mine"
    with pytest.raises(grpc.RpcError) as caught:
        service.stub.CreateDataset(other)
    assert caught.value.code() == grpc.StatusCode.ALREADY_EXISTS


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"preset": "gold"}, "dataset.preset"),
        ({"image_count": -1}, "dataset.image_count"),
        ({"image_count": 10**6}, "dataset.image_count"),
        ({"size_px": 5}, "dataset.size_px"),
    ],
)
def test_bad_requests_are_refused_before_any_work(
    service: Service, changes: dict[str, object], field: str
) -> None:
    before = len(service.runner.list())
    with pytest.raises(grpc.RpcError) as caught:
        service.stub.CreateDataset(_request(**changes))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert field in caught.value.details()
    assert len(service.runner.list()) == before


def test_validate_only_starts_nothing(service: Service) -> None:
    request = _request(seed=99)
    request.validate_only = True
    before = len(service.runner.list())
    service.stub.CreateDataset(request)
    assert len(service.runner.list()) == before


def test_a_preview_streams_frames_and_stores_nothing(service: Service) -> None:
    before = sorted(service.store.list(""))
    request = pb.PreviewRecipeRequest(preset="tio2", frame_count=2, size_px=64, seed=3)
    frames = list(service.stub.PreviewRecipe(request))
    assert len(frames) == 2
    for frame in frames:
        image = cv2.imdecode(np.frombuffer(frame.image_png, np.uint8), cv2.IMREAD_UNCHANGED)
        labels = cv2.imdecode(np.frombuffer(frame.labels_png, np.uint8), cv2.IMREAD_UNCHANGED)
        assert image.shape == labels.shape == (64, 64)
        assert (image.dtype, labels.dtype) == (np.uint8, np.uint16)
    assert sorted(service.store.list("")) == before
    with pytest.raises(grpc.RpcError) as caught:
        list(service.stub.PreviewRecipe(pb.PreviewRecipeRequest(preset="tio2", size_px=4096)))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_presets_are_listed_with_their_recipes(service: Service) -> None:
    found = service.stub.ListPresets(pb.ListPresetsRequest()).presets
    names = ["sio2", "tio2", "ag_particles", "ag_rods", "ag_wires", "spheres_any", "mixed_any"]
    assert [item.id for item in found] == names
    assert all(item.description and item.recipe.classes for item in found)


def test_bytes_do_not_depend_on_the_number_of_workers(service: Service, tmp_path: Path) -> None:
    request = pb.CreateDatasetRequest(
        dataset=pb.Dataset(preset="mixed_any", image_count=4, seed=8, size_px=96)
    )
    _, many = service.make(request)
    single = Service(tmp_path / "store", cpus=1)
    try:
        single.make(request)
        found = manifests.load(single.store, many.name)
    finally:
        single.close()
    wanted = manifests.load(service.store, many.name)
    assert {item.key: item.digest for item in found.objects} == {
        item.key: item.digest for item in wanted.objects
    }


def _violations(error: grpc.RpcError) -> set[str]:
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    (details,) = [
        bad
        for packed in rpc_status.from_call(error).details
        if packed.Unpack(bad := error_details_pb2.BadRequest())
    ]
    return {item.field for item in details.field_violations}


def test_every_offending_field_of_a_recipe_is_told_at_once(service: Service) -> None:
    sphere = {"sphere": {}, "diameter_nm": {"value": -5}}
    rod = {"rod": {"aspect_ratio": {"value": 0.2}}, "diameter_nm": {"value": "NaN"}}
    recipe = {
        "version": 99,
        "classes": [sphere, rod, {"mesh": {"file": "mine.stl"}, "diameter_nm": {"value": 50}}],
        "arrangement": {"count": {"value": 1e9}, "coverage": {"value": 0.99}},
        "imaging": {"pixel_size_nm": {"value": 0}, "tilt_deg": {"value": 80}},
        "appearance": {"rim": {"value": 1}, "gamma": {"value": -1}},
    }
    message = ParseDict(recipe, recipe_pb2.Recipe())
    before = len(service.runner.list())
    with pytest.raises(grpc.RpcError) as caught:
        service.stub.CreateDataset(
            pb.CreateDatasetRequest(dataset=pb.Dataset(recipe=message, image_count=2))
        )
    prefix = "dataset.recipe."
    assert _violations(caught.value) >= {
        f"{prefix}version",
        f"{prefix}classes[0].diameter_nm",
        f"{prefix}classes[1].diameter_nm",
        f"{prefix}classes[1].rod.aspect_ratio",
        f"{prefix}arrangement",
        f"{prefix}arrangement.count",
        f"{prefix}arrangement.coverage",
        f"{prefix}imaging.pixel_size_nm",
        f"{prefix}imaging.tilt_deg",
        f"{prefix}appearance.rim",
        f"{prefix}appearance.gamma",
    }
    assert len(service.runner.list()) == before


def test_a_checked_recipe_comes_back_with_its_defaults(service: Service) -> None:
    short = ParseDict(
        {
            "classes": [{"rod": {}, "diameter_nm": {"value": 40}}],
            "imaging": {"field_of_view_nm": {"value": 2000}},
        },
        recipe_pb2.Recipe(),
    )
    full = service.stub.CheckRecipe(pb.CheckRecipeRequest(recipe=short)).recipe
    assert full.imaging.size_px == 512
    assert full.classes[0].rod.aspect_ratio.log_normal.median == 4
    again = service.stub.CheckRecipe(pb.CheckRecipeRequest(recipe=full)).recipe
    assert again == full


def _with_mesh(service: Service, solid: trimesh.Trimesh) -> recipe_pb2.Recipe:
    data = solid.export(file_type="stl")
    key = f"uploads/{hashlib.sha256(data).hexdigest()}"
    service.store.put(key, data, "model/stl")
    return ParseDict(
        {
            "classes": [
                {"mesh": {"file": key, "format": "FORMAT_STL"}, "diameter_nm": {"value": 60}}
            ],
            "arrangement": {"count": {"value": 6}},
            "imaging": {"pixel_size_nm": {"value": 4}, "size_px": 64},
        },
        recipe_pb2.Recipe(),
    )


def test_a_users_mesh_is_rendered_and_an_open_one_refused(service: Service) -> None:
    box = trimesh.creation.box((3, 2, 1))
    request = pb.PreviewRecipeRequest(recipe=_with_mesh(service, box), size_px=64)
    (frame,) = service.stub.PreviewRecipe(request)
    assert frame.particle_count > 0
    hole = trimesh.Trimesh(box.vertices, box.faces[1:], process=False)
    with pytest.raises(grpc.RpcError) as caught:
        service.stub.CheckRecipe(pb.CheckRecipeRequest(recipe=_with_mesh(service, hole)))
    assert _violations(caught.value) == {"recipe.classes[0].mesh.file"}


def test_a_preview_ends_with_its_sheet_when_asked(service: Service) -> None:
    request = pb.PreviewRecipeRequest(preset="ag_rods", frame_count=2, size_px=96, sheet=True)
    *frames, last = service.stub.PreviewRecipe(request)
    assert [frame.frame for frame in frames] == [0, 1]
    sheet = cv2.imdecode(np.frombuffer(last.sheet_png, np.uint8), cv2.IMREAD_UNCHANGED)
    assert sheet.ndim == 3
    assert sheet.shape[1] > 2 * 96


def test_rendered_frames_are_compared_with_references(service: Service) -> None:
    _, dataset = service.make(_request(image_count=2, size_px=128, seed=40))
    request = pb.CompareRecipeRequest(
        preset="sio2", references=dataset.images, frame_count=2, size_px=128
    )
    *parts, last = service.stub.CompareRecipe(request)
    assert parts[-1].progress.units_done == 2
    found = last.comparison
    assert found.sheet_png.startswith(b"\x89PNG")
    assert 0 < found.grey_level_distance < 1
    assert {curve.label for curve in found.spectra} >= {"references", "rendered"}
    with pytest.raises(grpc.RpcError) as caught:
        list(service.stub.CompareRecipe(pb.CompareRecipeRequest(preset="sio2")))
    assert _violations(caught.value) == {"references"}


def test_a_server_never_imports_blender() -> None:
    program = "import sys, granulo_render.servicer; sys.exit('bpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
