# SPDX-License-Identifier: GPL-3.0-or-later
"""What every server does around its service: a real server, a real channel, generated stubs."""

import hashlib
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import grpc
import pytest
from google.longrunning import operations_pb2, operations_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from granulo.artifact.v1 import artifact_service_pb2, artifact_service_pb2_grpc
from granulo.operations.v1 import operation_watch_service_pb2, operation_watch_service_pb2_grpc
from granulo.render.v1 import render_service_pb2 as pb
from granulo.render.v1 import render_service_pb2_grpc as rpc
from granulo_core.engine.local import LocalEngine
from granulo_core.errors import GranuloError
from granulo_core.operations.runner import OperationRunner
from granulo_core.rpc.channel import open_channel
from granulo_core.rpc.server import GranuloServer, ServiceRegistration, build_server
from granulo_core.settings import CoreSettings
from granulo_core.store import LocalStore

# Worker processes import the module, too: they inherit this path.
sys.path.insert(0, str(Path(__file__).parent))
import operation_jobs as jobs
from probe_service import Probe, details, failure

SERVICE = "granulo.render.v1.RenderService"
THREADS = 4  # of which two for streams


@pytest.fixture(scope="module")
def engine() -> Iterator[LocalEngine]:
    made = LocalEngine(cpus=1)
    yield made
    made.close()


@pytest.fixture
def runner(local_store: LocalStore, engine: LocalEngine) -> Iterator[OperationRunner]:
    with closing(jobs.make_runner(local_store, engine)) as made:
        yield made


@pytest.fixture
def probe(runner: OperationRunner) -> Probe:
    return Probe(runner)


@pytest.fixture
def server(
    local_store: LocalStore, runner: OperationRunner, probe: Probe
) -> Iterator[GranuloServer]:
    made = build_server(
        [
            ServiceRegistration(
                SERVICE,
                lambda server: rpc.add_RenderServiceServicer_to_server(probe, server),
                long_calls=frozenset({"ListPresets"}),
            )
        ],
        runners=[runner],
        store=local_store,
        settings=CoreSettings(max_rpc_threads=THREADS),
    )
    made.start("127.0.0.1:0")
    yield made
    probe.go_on.set()
    made.stop(0)


@pytest.fixture
def channel(server: GranuloServer) -> Iterator[grpc.Channel]:
    with open_channel(server.address) as made:
        yield made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "shards"
    made.mkdir()
    return made


def get_dataset(channel: grpc.Channel, name: str) -> pb.Dataset:
    return rpc.RenderServiceStub(channel).GetDataset(pb.GetDatasetRequest(name=name), timeout=10)


def test_errors_carry_their_reason_and_what_helps(channel: grpc.Channel) -> None:
    error = failure(lambda: get_dataset(channel, "busy"))
    found = details(error)
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert error.details() == "Later."
    assert (found["ErrorInfo"].reason, found["ErrorInfo"].domain) == ("SERVER_BUSY", "granulo")
    assert found["RetryInfo"].retry_delay.ToMilliseconds() == 2500
    error = failure(lambda: get_dataset(channel, "referenced"))
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    (violation,) = details(error)["PreconditionFailure"].violations
    assert (violation.type, violation.subject) == ("RESOURCE_REFERENCED", "datasets/a")


def test_required_fields_are_asked_for_all_at_once(channel: grpc.Channel) -> None:
    stub = rpc.RenderServiceStub(channel)
    request = pb.CreateDatasetRequest(dataset=pb.Dataset(preset="sio2"))
    error = failure(lambda: stub.CreateDataset(request))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    fields = [v.field for v in details(error)["BadRequest"].field_violations]
    assert fields == ["dataset.image_count"]
    error = failure(lambda: stub.CreateDataset(pb.CreateDatasetRequest()))
    assert [v.field for v in details(error)["BadRequest"].field_violations] == ["dataset"]


def test_a_defect_tells_its_request_id_and_nothing_private(channel: grpc.Channel) -> None:
    call = rpc.RenderServiceStub(channel).GetDataset
    error = failure(
        lambda: call(pb.GetDatasetRequest(name="defect"), metadata=[("x-request-id", "r-7")])
    )
    assert error.code() is grpc.StatusCode.INTERNAL
    assert dict(error.trailing_metadata())["x-request-id"] == "r-7"
    assert details(error)["ErrorInfo"].metadata["request_id"] == "r-7"
    assert "r-7" in error.details()
    assert "secret" not in error.details()
    _, fine = call.with_call(pb.GetDatasetRequest(name="a"), metadata=[("x-request-id", "r-8")])
    assert dict(fine.trailing_metadata())["x-request-id"] == "r-8"


def test_an_error_with_very_many_violations_still_arrives(channel: grpc.Channel) -> None:
    error = failure(lambda: get_dataset(channel, "verbose"))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert details(error)["BadRequest"].field_violations[0].field == "files[0]"


def test_a_stream_that_fails_on_its_way_says_why(channel: grpc.Channel, probe: Probe) -> None:
    frames = rpc.RenderServiceStub(channel).PreviewRecipe(pb.PreviewRecipeRequest(preset="fails"))
    assert next(frames).image_png == b"first"
    probe.go_on.set()
    error = failure(lambda: next(frames))
    assert details(error)["ErrorInfo"].reason == "WORKER_DIED"


def test_streams_and_waiting_calls_leave_threads_for_the_others(
    channel: grpc.Channel, runner: OperationRunner, folder: Path
) -> None:
    (folder / "s00.hold").touch()
    name = runner.start(jobs.KIND, jobs.request(folder, 1), target=jobs.target(1)).name
    stub = rpc.RenderServiceStub(channel)
    operations = operations_pb2_grpc.OperationsStub(channel)
    wait = operations_pb2.WaitOperationRequest(name=name)
    stream = stub.PreviewRecipe(pb.PreviewRecipeRequest())
    next(stream)
    deadline_s = time.monotonic() + 10
    error = None
    while error is None:  # until the waiting call has its place, which the tries also take
        waiting = operations.WaitOperation.future(wait)
        while _try_stream(stub) is None and not waiting.done():
            assert time.monotonic() < deadline_s
        # The place may have been that of the last try, which has ended by now.
        time.sleep(0.3)
        error = None if waiting.done() else _try_stream(stub)
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert details(error)["ErrorInfo"].reason == "TOO_MANY_STREAMS"
    assert "RetryInfo" in details(error)
    refused = failure(lambda: operations.WaitOperation(wait, timeout=10))
    assert details(refused)["ErrorInfo"].reason == "TOO_MANY_STREAMS"
    long = failure(lambda: stub.ListPresets(pb.ListPresetsRequest(), timeout=10))
    assert long.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    health = health_pb2_grpc.HealthStub(channel)
    assert health.Check(health_pb2.HealthCheckRequest(), timeout=5).status == 1
    assert not operations.GetOperation(
        operations_pb2.GetOperationRequest(name=name), timeout=5
    ).done
    # Who leaves makes room.
    stream.cancel()
    deadline_s = time.monotonic() + 10
    while _try_stream(stub) is not None:
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    (folder / "s00.hold").unlink()
    assert waiting.result(timeout=60).done


def _try_stream(stub: rpc.RenderServiceStub) -> grpc.RpcError | None:
    frames = stub.PreviewRecipe(pb.PreviewRecipeRequest(), timeout=10)
    try:
        next(frames)
    except grpc.RpcError as error:
        return error
    frames.cancel()
    return None


def test_a_job_over_the_wire_from_start_to_deletion(channel: grpc.Channel, folder: Path) -> None:
    (folder / "s01.hold").touch()
    created = rpc.RenderServiceStub(channel).CreateDataset(jobs.request(folder, 2, "id-1"))
    operations = operations_pb2_grpc.OperationsStub(channel)
    wait = operations_pb2.WaitOperationRequest(name=created.name)
    assert not operations.WaitOperation(wait, timeout=0.5).done  # a state, no DEADLINE_EXCEEDED
    watcher = operation_watch_service_pb2_grpc.OperationWatchServiceStub(channel)
    watch = operation_watch_service_pb2.WatchOperationRequest(name=created.name)
    events = watcher.WatchOperation(watch)
    first = next(events)
    assert not first.operation.done
    (folder / "s01.hold").unlink()
    last = list(events)[-1]
    assert last.operation.done
    assert last.sequence > first.sequence
    get = operations_pb2.GetOperationRequest(name=created.name)
    assert operations.GetOperation(get) == last.operation
    for parent in ("", "operations", "operations/render"):
        listed = operations.ListOperations(operations_pb2.ListOperationsRequest(name=parent))
        assert [item.name for item in listed.operations] == [created.name]
    operations.CancelOperation(operations_pb2.CancelOperationRequest(name=created.name))
    operations.DeleteOperation(operations_pb2.DeleteOperationRequest(name=created.name))
    assert failure(lambda: operations.GetOperation(get)).code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("", grpc.StatusCode.INVALID_ARGUMENT),
        ("operations/render", grpc.StatusCode.INVALID_ARGUMENT),
        ("datasets/render/1", grpc.StatusCode.INVALID_ARGUMENT),
        ("operations/nobody/1", grpc.StatusCode.NOT_FOUND),
        ("operations/render/1", grpc.StatusCode.NOT_FOUND),
    ],
)
def test_names_of_operations_are_checked(
    channel: grpc.Channel, name: str, code: grpc.StatusCode
) -> None:
    stub = operations_pb2_grpc.OperationsStub(channel)
    for call in (
        lambda: stub.GetOperation(operations_pb2.GetOperationRequest(name=name)),
        lambda: stub.CancelOperation(operations_pb2.CancelOperationRequest(name=name)),
        lambda: stub.DeleteOperation(operations_pb2.DeleteOperationRequest(name=name)),
        lambda: stub.WaitOperation(operations_pb2.WaitOperationRequest(name=name)),
    ):
        assert failure(call).code() is code


def test_pages_of_operations_hold_each_one_once(
    channel: grpc.Channel, runner: OperationRunner, folder: Path
) -> None:
    names = {
        runner.start(jobs.KIND, jobs.request(folder, n), target=jobs.target(n)).name
        for n in (1, 2, 3)
    }
    stub = operations_pb2_grpc.OperationsStub(channel)
    token, seen = "", []
    while True:
        page = stub.ListOperations(
            operations_pb2.ListOperationsRequest(name="operations", page_size=2, page_token=token)
        )
        seen += [item.name for item in page.operations]
        if not (token := page.next_page_token):
            break
    assert sorted(seen) == sorted(names)


def test_health_and_reflection_know_every_service(
    channel: grpc.Channel, server: GranuloServer
) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    (answer,) = stub.ServerReflectionInfo(iter([request]))
    names = {item.name for item in answer.list_services_response.service}
    assert names >= {
        SERVICE,
        "google.longrunning.Operations",
        "granulo.operations.v1.OperationWatchService",
        "granulo.artifact.v1.ArtifactService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }
    health = health_pb2_grpc.HealthStub(channel)
    for name in ("", SERVICE, "google.longrunning.Operations"):
        checked = health.Check(health_pb2.HealthCheckRequest(service=name))
        assert checked.status == health_pb2.HealthCheckResponse.SERVING
    unknown = failure(lambda: health.Check(health_pb2.HealthCheckRequest(service="x")))
    assert unknown.code() is grpc.StatusCode.NOT_FOUND


def upload(
    channel: grpc.Channel, data: bytes, expected: str = "", chunk: int = 1 << 20
) -> artifact_service_pb2.UploadArtifactResponse:
    def parts() -> Iterator[artifact_service_pb2.UploadArtifactRequest]:
        header = artifact_service_pb2.UploadArtifactRequest.Header(
            media_type="image/tiff", expected_digest=expected, display_name="my sample.tif"
        )
        yield artifact_service_pb2.UploadArtifactRequest(header=header)
        for start in range(0, len(data), chunk):
            yield artifact_service_pb2.UploadArtifactRequest(chunk=data[start : start + chunk])

    return artifact_service_pb2_grpc.ArtifactServiceStub(channel).UploadArtifact(parts())


def download(channel: grpc.Channel, uri: str, offset: int = 0) -> tuple[object, bytes]:
    stub = artifact_service_pb2_grpc.ArtifactServiceStub(channel)
    request = artifact_service_pb2.DownloadArtifactRequest(uri=uri, read_offset=offset)
    head, *rest = stub.DownloadArtifact(request)
    assert all(len(part.chunk) <= 1 << 20 for part in rest)
    return head.artifact, b"".join(part.chunk for part in rest)


@pytest.mark.parametrize("size", [0, 1, (1 << 20) + 5])
def test_artifacts_come_back_as_they_went(channel: grpc.Channel, size: int) -> None:
    data = os.urandom(size)
    digest = hashlib.sha256(data).hexdigest()
    artifact = upload(channel, data, f"sha256:{digest}").artifact
    assert (artifact.uri, artifact.digest) == (f"uploads/{digest}", f"sha256:{digest}")
    assert (artifact.size_bytes, artifact.media_type) == (size, "image/tiff")
    assert artifact.display_name == "my sample.tif"
    assert upload(channel, data).artifact == artifact
    head, received = download(channel, artifact.uri)
    assert received == data
    assert head.digest == artifact.digest
    assert download(channel, artifact.uri, size // 2)[1] == data[size // 2 :]


def test_bad_uploads_are_refused_and_leave_nothing(
    channel: grpc.Channel, local_store: LocalStore
) -> None:
    stub = artifact_service_pb2_grpc.ArtifactServiceStub(channel)
    part = artifact_service_pb2.UploadArtifactRequest
    header = part(header=part.Header(media_type="image/tiff"))
    for parts in ([], [part(chunk=b"a")], [part(header=part.Header())], [header, header]):
        error = failure(lambda parts=parts: stub.UploadArtifact(iter(parts)))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    error = failure(lambda: upload(channel, b"a" * ((1 << 20) + 1), chunk=(1 << 20) + 1))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    error = failure(lambda: upload(channel, b"abc", "sha256:" + "0" * 64))
    assert error.code() is grpc.StatusCode.DATA_LOSS
    assert details(error)["ErrorInfo"].reason == "DIGEST_MISMATCH"
    assert list(local_store.list("")) == []


def test_only_results_can_be_downloaded(channel: grpc.Channel, local_store: LocalStore) -> None:
    local_store.put("operations/render/x/operation.json", b"{}")
    local_store.put("datasets/a/0.txt", b"abc")
    for uri in ("operations/render/x/operation.json", "/etc/passwd", "datasets/none"):
        assert failure(lambda uri=uri: download(channel, uri)).code() is grpc.StatusCode.NOT_FOUND
    escape = failure(lambda: download(channel, "datasets/../operations/render/x/operation.json"))
    assert escape.code() is grpc.StatusCode.INVALID_ARGUMENT
    for offset in (-1, 4):
        error = failure(lambda offset=offset: download(channel, "datasets/a/0.txt", offset))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert download(channel, "datasets/a/0.txt", 3)[1] == b""


@pytest.mark.parametrize("listen", ["taken", "localhost", "1.2.3.4:0", ":99999", "127.0.0.1:x"])
def test_an_address_that_cannot_be_bound_is_a_clear_error(
    local_store: LocalStore, listen: str
) -> None:
    with closing(socket.socket()) as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        if listen == "taken":
            listen = f"127.0.0.1:{other.getsockname()[1]}"
        made = build_server([], runners=[], store=local_store, settings=CoreSettings())
        with pytest.raises(GranuloError) as refused:
            made.start(listen)
    assert refused.value.violations[0].field == "listen"
    assert listen in refused.value.message


def test_two_servers_do_not_share_a_port(server: GranuloServer, local_store: LocalStore) -> None:
    second = build_server([], runners=[], store=local_store, settings=CoreSettings())
    with pytest.raises(GranuloError):
        second.start(server.address)


def test_stopping_sends_watchers_away_at_once_and_keeps_the_operation(
    channel: grpc.Channel, server: GranuloServer, runner: OperationRunner, folder: Path
) -> None:
    (folder / "s00.hold").touch()
    name = runner.start(jobs.KIND, jobs.request(folder, 1), target=jobs.target(1)).name
    watcher = operation_watch_service_pb2_grpc.OperationWatchServiceStub(channel)
    events = watcher.WatchOperation(operation_watch_service_pb2.WatchOperationRequest(name=name))
    next(events)
    begin_s = time.monotonic()
    server.stop(30.0)
    assert time.monotonic() - begin_s < 10.0
    assert not any(event.operation.done for event in events)
    assert not runner.get(name).done
