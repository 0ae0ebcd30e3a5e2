# SPDX-License-Identifier: GPL-3.0-or-later
"""The client against a small server with fault switches, made of the generated servicers."""
# ruff: noqa: N802 (methods have the names of the RPCs)

import hashlib
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.longrunning import operations_pb2, operations_pb2_grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from granulo.artifact.v1 import artifact_service_pb2 as artifact_pb
from granulo.artifact.v1 import artifact_service_pb2_grpc as artifact_grpc
from granulo.operations.v1 import operation_watch_service_pb2 as watch_pb
from granulo.operations.v1 import operation_watch_service_pb2_grpc as watch_grpc
from granulo.render.v1 import render_service_pb2 as render_pb
from granulo.render.v1 import render_service_pb2_grpc as render_grpc
from granulo.type.v1 import artifact_pb2, progress_pb2
from granulo_client import (
    CancelledError,
    Client,
    DataLossError,
    GranuloClientError,
    InvalidArgumentError,
    NotFoundError,
    ResourceExhaustedError,
    UnavailableError,
    UsageError,
)
from granulo_client import jobs as jobs_module
from granulo_client.cli import run_command

_NAME = "operations/render/abc-1"
_SCENES = 4


class _Fake(
    render_grpc.RenderServiceServicer,
    operations_pb2_grpc.OperationsServicer,
    watch_grpc.OperationWatchServiceServicer,
    artifact_grpc.ArtifactServiceServicer,
):
    """Renders nothing in four steps; ``breaks`` streams end before their time."""

    def __init__(self) -> None:
        self.breaks = 0
        self.refuse_streams = False
        self.end: any_pb2.Any | status_pb2.Status = _packed(render_pb.Dataset(name="datasets/d"))
        self.refusal: status_pb2.Status | None = None
        self.asked_after: list[int] = []
        self.requests: list[Any] = []
        self.stored: dict[str, bytes] = {}
        self.chunk_sizes: list[int] = []
        self.damage = False

    def CreateDataset(self, request: Any, context: Any) -> operations_pb2.Operation:
        self.requests.append(request)
        self._maybe_refuse(context)
        return self._operation(0)

    def ListPresets(self, request: Any, context: Any) -> render_pb.ListPresetsResponse:
        page = int(request.page_token or 0)
        return render_pb.ListPresetsResponse(
            presets=[render_pb.Preset(id=f"p{page}")], next_page_token=str(page + 1) * (page < 2)
        )

    def GetOperation(self, request: Any, context: Any) -> operations_pb2.Operation:
        return self._operation(_SCENES)

    def WatchOperation(
        self, request: Any, context: Any
    ) -> Iterator[watch_pb.WatchOperationResponse]:
        self.asked_after.append(request.after_sequence)
        if self.refuse_streams:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "all streams are taken")
        for sequence in range(request.after_sequence + 1, _SCENES + 1):
            yield watch_pb.WatchOperationResponse(
                sequence=sequence, operation=self._operation(sequence)
            )
            if sequence == 2 and self.breaks:
                self.breaks -= 1
                context.abort(grpc.StatusCode.UNAVAILABLE, "connection reset")

    def UploadArtifact(self, requests: Any, context: Any) -> artifact_pb.UploadArtifactResponse:
        header = next(requests).header
        data = b""
        for message in requests:
            self.chunk_sizes.append(len(message.chunk))
            data += message.chunk
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        assert header.expected_digest == digest
        uri = f"uploads/{digest.removeprefix('sha256:')}"
        self.stored[uri] = data
        return artifact_pb.UploadArtifactResponse(
            artifact=artifact_pb2.Artifact(uri=uri, digest=digest, media_type=header.media_type)
        )

    def DownloadArtifact(
        self, request: Any, context: Any
    ) -> Iterator[artifact_pb.DownloadArtifactResponse]:
        data = self.stored[request.uri]
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.asked_after.append(request.read_offset)
        rest = data[request.read_offset :]
        if self.damage:
            rest = b"x" + rest[1:]
        yield artifact_pb.DownloadArtifactResponse(
            artifact=artifact_pb2.Artifact(uri=request.uri, digest=digest), chunk=rest[:1000]
        )
        if self.breaks:
            self.breaks -= 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "connection reset")
        yield artifact_pb.DownloadArtifactResponse(chunk=rest[1000:])

    def _maybe_refuse(self, context: Any) -> None:
        if self.refusal is not None:
            context.abort_with_status(rpc_status.to_status(self.refusal))

    def _operation(self, done: int) -> operations_pb2.Operation:
        progress = progress_pb2.Progress(unit="scene", units_total=_SCENES, units_done=done)
        operation = operations_pb2.Operation(
            name=_NAME, metadata=_packed(render_pb.CreateDatasetMetadata(progress=progress))
        )
        if done == _SCENES:
            operation.done = True
            if isinstance(self.end, status_pb2.Status):
                operation.error.CopyFrom(self.end)
            else:
                operation.response.CopyFrom(self.end)
        return operation


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Fake]:
    monkeypatch.setattr(jobs_module, "_POLL_S", 0.01)
    fake = _Fake()
    server = grpc.server(ThreadPoolExecutor(4))
    render_grpc.add_RenderServiceServicer_to_server(fake, server)
    operations_pb2_grpc.add_OperationsServicer_to_server(fake, server)
    watch_grpc.add_OperationWatchServiceServicer_to_server(fake, server)
    artifact_grpc.add_ArtifactServiceServicer_to_server(fake, server)
    fake.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"  # type: ignore[attr-defined]
    server.start()
    yield fake
    server.stop(None).wait()


@pytest.fixture
def client(fake: Any) -> Iterator[Client]:
    with Client(fake.address) as client:
        yield client


def test_a_job_is_followed_to_its_result(client: Client, fake: _Fake) -> None:
    seen: list[int] = []

    dataset = client.render("sio2", count=4, seed=7).result(lambda p: seen.append(p.units_done))

    assert dataset.name == "datasets/d"
    assert seen == [1, 2, 3, 4]
    assert fake.requests[0].dataset.preset == "sio2"
    assert (fake.requests[0].dataset.image_count, fake.requests[0].dataset.seed) == (4, 7)


def test_a_broken_watch_stream_is_resumed_after_the_last_event(client: Client, fake: _Fake) -> None:
    fake.breaks = 1
    seen: list[int] = []

    client.render("sio2", count=4).result(lambda progress: seen.append(progress.units_done))

    assert fake.asked_after == [0, 2]
    assert seen == [1, 2, 3, 4]


def test_a_server_without_free_streams_is_polled(client: Client, fake: _Fake) -> None:
    fake.refuse_streams = True

    assert client.render("sio2", count=4).result().name == "datasets/d"


def test_a_dead_server_ends_the_waiting_at_once(fake: Any) -> None:
    fake.breaks = 1
    gone = threading.Event()
    with Client(fake.address, alive=lambda: not gone.is_set()) as client:
        job = client.render("sio2", count=4)
        gone.set()

        with pytest.raises(UnavailableError, match="No Granulo server answers"):
            job.result()


def test_a_failed_operation_raises_its_error(client: Client, fake: _Fake) -> None:
    fake.end = _status(code_pb2.CANCELLED, "was cancelled", reason="OPERATION_CANCELLED")

    with pytest.raises(CancelledError) as caught:
        client.render("sio2", count=4).result()

    assert (caught.value.code, caught.value.reason) == ("CANCELLED", "OPERATION_CANCELLED")


def test_a_result_of_another_type_is_an_error(client: Client, fake: _Fake) -> None:
    fake.end = _packed(render_pb.Preset())

    with pytest.raises(GranuloClientError, match=r"granulo\.render\.v1\.Dataset was expected"):
        client.render("sio2", count=4).result()


def test_a_refusal_carries_reason_fields_and_retry_time(client: Client, fake: _Fake) -> None:
    bad = error_details_pb2.BadRequest()
    bad.field_violations.add(field="dataset.image_count", description="is -1; give 1 or more")
    fake.refusal = _status(code_pb2.INVALID_ARGUMENT, "bad count", bad, reason="FIELD_INVALID")
    with pytest.raises(InvalidArgumentError) as caught:
        client.render("sio2", count=-1)
    assert caught.value.reason == "FIELD_INVALID"
    assert caught.value.violations[0].field == "dataset.image_count"
    assert caught.value.is_usage

    retry = error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=3600))
    fake.refusal = _status(code_pb2.RESOURCE_EXHAUSTED, "busy", retry, reason="SERVER_BUSY")
    with pytest.raises(ResourceExhaustedError) as busy:
        client.render("sio2", count=1)
    assert busy.value.retry_after_s == 3600.0
    assert not busy.value.is_usage


def test_an_unwritable_or_full_store_is_wrong_usage(client: Client, fake: _Fake) -> None:
    for code, reason in (
        (code_pb2.PERMISSION_DENIED, "STORE_NOT_WRITABLE"),
        (code_pb2.RESOURCE_EXHAUSTED, "STORE_FULL"),
    ):
        fake.refusal = _status(code, "no place", reason=reason)
        with pytest.raises(GranuloClientError) as caught:
            client.render("sio2", count=1)
        assert caught.value.is_usage


def test_all_pages_of_a_list_are_read(client: Client) -> None:
    assert [preset.id for preset in client.presets()] == ["p0", "p1", "p2"]


def test_uploads_go_in_chunks_of_at_most_one_mib(
    client: Client, fake: _Fake, tmp_path: Path
) -> None:
    path = tmp_path / "sample.tif"
    path.write_bytes(bytes(range(256)) * 10_000)
    counted: list[int] = []

    artifact = client.transfers.upload(path, "render", on_bytes=counted.append)

    assert max(fake.chunk_sizes) == 1024 * 1024
    assert sum(counted) == path.stat().st_size
    assert fake.stored[artifact.uri] == path.read_bytes()
    assert (artifact.display_name, artifact.media_type) == ("sample.tif", "image/tiff")


def test_a_broken_download_continues_where_it_broke(
    client: Client, fake: _Fake, tmp_path: Path
) -> None:
    fake.stored["datasets/d/a"] = b"granulo!" * 1000
    fake.breaks = 1

    path = client.download("datasets/d/a", tmp_path / "new" / "a")

    assert path.read_bytes() == fake.stored["datasets/d/a"]
    assert fake.asked_after == [0, 1000]


def test_a_damaged_download_leaves_no_file(client: Client, fake: _Fake, tmp_path: Path) -> None:
    fake.stored["datasets/d/a"] = b"granulo!" * 1000
    fake.damage = True

    with pytest.raises(DataLossError, match="digest"):
        client.download("datasets/d/a", tmp_path / "a")

    assert list(tmp_path.iterdir()) == []


def test_an_unknown_address_says_so() -> None:
    with (
        Client("127.0.0.1:1") as client,
        pytest.raises(UnavailableError, match=r"No Granulo server answers at 127\.0\.0\.1:1"),
    ):
        client.presets()


@pytest.mark.parametrize("address", ["nowhere", "host:0", "host:x", "host:70000", ":50050"])
def test_a_malformed_address_is_wrong_usage(address: str) -> None:
    with pytest.raises(UsageError, match="HOST:PORT"):
        Client(address)


def test_each_service_may_have_its_own_address() -> None:
    with Client("render=a:1, trainer=b:2") as client:
        assert client.channels.routes == {"render": "a:1", "trainer": "b:2"}
        with pytest.raises(UsageError, match="analyzer=HOST:PORT"):
            client.evaluate([])


def test_the_command_prints_one_json_document(
    fake: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run_command(["render", "sio2", "--count", "4", "--server", fake.address, "--json"])

    assert code == 0
    assert json.loads(capsys.readouterr().out)["dataset"] == "datasets/d"


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (code_pb2.INVALID_ARGUMENT, 2),
        (code_pb2.NOT_FOUND, 2),
        (code_pb2.INTERNAL, 1),
        (code_pb2.CANCELLED, 1),
    ],
)
def test_exit_codes_tell_wrong_usage_from_failure(
    fake: Any, capsys: pytest.CaptureFixture[str], status: int, code: int
) -> None:
    fake.end = _status(status, "what was wrong and what to do")
    words = ["render", "sio2", "--count", "4", "--server", fake.address, "--quiet", "--json"]

    assert run_command(words) == code

    printed = capsys.readouterr()
    assert printed.err == "Error: what was wrong and what to do\n"
    assert json.loads(printed.out)["error"]["code"] == code_pb2.Code.Name(status)


def test_an_operations_name_is_found_by_its_service(client: Client) -> None:
    assert client.operations.get(_NAME).done
    with pytest.raises(UsageError, match="operations list"):
        client.operations.get("operations/bakery/1")


def test_not_found_is_typed(client: Client, fake: _Fake) -> None:
    fake.refusal = _status(code_pb2.NOT_FOUND, "no", reason="RESOURCE_NOT_FOUND")
    with pytest.raises(NotFoundError):
        client.render("sio2", count=1)


def _packed(message: Any) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed


def _status(code: int, message: str, *details: Any, reason: str = "") -> status_pb2.Status:
    info = error_details_pb2.ErrorInfo(reason=reason, domain="granulo")
    return status_pb2.Status(
        code=code, message=message, details=[_packed(detail) for detail in (info, *details)]
    )
