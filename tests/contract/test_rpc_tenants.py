# SPDX-License-Identifier: GPL-3.0-or-later
"""A tenant sees its own store as the whole one: objects, operations, the work of tasks."""

import hashlib
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import grpc
import pytest
import yaml
from google.longrunning import operations_pb2, operations_pb2_grpc

from granulo.artifact.v1 import artifact_service_pb2 as artifact_pb
from granulo.artifact.v1 import artifact_service_pb2_grpc as artifact_rpc
from granulo.render.v1 import render_service_pb2 as pb
from granulo.render.v1 import render_service_pb2_grpc as rpc
from granulo_core.engine.local import LocalEngine
from granulo_core.errors import GranuloError, Reason
from granulo_core.operations.runner import OperationRunner
from granulo_core.rpc.channel import open_channel
from granulo_core.rpc.server import (
    BuiltService,
    GranuloServer,
    ServiceRegistration,
    build_server,
)
from granulo_core.settings import CoreSettings
from granulo_core.store import LocalStore, ObjectStore, open_store
from granulo_core.store.tenants import tenant_of, tenant_url

# Worker processes import the module, too: they inherit this path.
sys.path.insert(0, str(Path(__file__).parent))
import operation_jobs as jobs

SERVICE = "granulo.render.v1.RenderService"
PEOPLE = {"ann": "acme", "bob": "rival", "root": ""}


class Renderer(rpc.RenderServiceServicer):
    """Starts the tests' kind of operation."""

    def __init__(self, runner: OperationRunner) -> None:
        self.runner = runner

    def CreateDataset(  # noqa: N802
        self, request: pb.CreateDatasetRequest, context: grpc.ServicerContext
    ) -> operations_pb2.Operation:
        target = jobs.target(request.dataset.image_count)
        return self.runner.start(jobs.KIND, request, target=target)


class Client:
    """Stubs with one person's token."""

    def __init__(self, channel: grpc.Channel, name: str) -> None:
        self._metadata = (("authorization", f"Bearer {name}"),)
        self._render = rpc.RenderServiceStub(channel)
        self._operations = operations_pb2_grpc.OperationsStub(channel)
        self._artifacts = artifact_rpc.ArtifactServiceStub(channel)

    def create(self, request: pb.CreateDatasetRequest) -> str:
        name: str = self._render.CreateDataset(request, metadata=self._metadata).name
        return name

    def get(self, name: str) -> operations_pb2.Operation:
        request = operations_pb2.GetOperationRequest(name=name)
        return self._operations.GetOperation(request, metadata=self._metadata)

    def wait(self, name: str) -> operations_pb2.Operation:
        request = operations_pb2.WaitOperationRequest(name=name)
        return self._operations.WaitOperation(request, metadata=self._metadata, timeout=120)

    def operations(self) -> list[str]:
        request = operations_pb2.ListOperationsRequest(name="operations")
        found = self._operations.ListOperations(request, metadata=self._metadata)
        return [item.name for item in found.operations]

    def download(self, uri: str) -> bytes:
        request = artifact_pb.DownloadArtifactRequest(uri=uri)
        parts = self._artifacts.DownloadArtifact(request, metadata=self._metadata)
        return b"".join(part.chunk for part in parts)


@pytest.fixture(scope="module")
def engine() -> Iterator[LocalEngine]:
    made = LocalEngine(cpus=1)
    yield made
    made.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "shards"
    made.mkdir()
    return made


@contextmanager
def serving(
    store: ObjectStore, engine: LocalEngine, folder: Path, broken: str = ""
) -> Iterator[grpc.Channel]:
    tokens = folder.parent / "tokens.yaml"
    tokens.write_text(
        yaml.safe_dump(
            [
                {"sha256": hashlib.sha256(name.encode()).hexdigest(), "subject": name,
                 "roles": ["admin"], "tenant": tenant}
                for name, tenant in PEOPLE.items()
            ]
        )
    )  # fmt: skip

    def build(store: ObjectStore) -> BuiltService:
        runner = jobs.make_runner(store, engine)
        servicer = Renderer(runner)
        return BuiltService(
            ServiceRegistration(
                SERVICE, lambda server: rpc.add_RenderServiceServicer_to_server(servicer, server)
            ),
            runner,
            build,
        )

    def for_tenant(store: ObjectStore) -> list[BuiltService]:
        if tenant_of(store.url) == broken:
            raise GranuloError(Reason.STORE_UNAVAILABLE, "It does not answer.")
        return [build(store)]

    root = build(store)
    server: GranuloServer = build_server(
        [root.registration],
        runners=[root.runner],
        store=store,
        settings=CoreSettings(auth="token", auth_tokens_file=str(tokens)),
        for_tenant=for_tenant,
    )
    with closing(server), open_channel(server.start("127.0.0.1:0")) as channel:
        server.resume()
        try:
            yield channel
        finally:
            server.stop(0)


def code_of(call: Callable[[], object]) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code()


def test_operations_and_their_tasks_stay_in_the_tenants_store(
    local_store: LocalStore, engine: LocalEngine, folder: Path
) -> None:
    with serving(local_store, engine, folder) as channel:
        ann, bob, root = (Client(channel, name) for name in PEOPLE)
        name = ann.create(jobs.request(folder, 2))
        assert ann.wait(name).done
        for other in (bob, root):
            assert other.operations() == []
            assert code_of(lambda other=other: other.get(name)) is grpc.StatusCode.NOT_FOUND
        assert ann.download(f"{jobs.OBJECTS}/s00.txt") == b"s00"
        for other in (bob, root):
            uri = f"{jobs.OBJECTS}/s00.txt"
            assert (
                code_of(lambda other=other, uri=uri: other.download(uri))
                is grpc.StatusCode.NOT_FOUND
            )
    # The root's own prefixes are empty: nothing was written outside of the tenant's.
    assert {key.split("/")[1] for key in local_store.list("")} == {"acme"}


def test_equal_requests_of_two_tenants_do_not_meet(
    local_store: LocalStore, engine: LocalEngine, folder: Path
) -> None:
    with serving(local_store, engine, folder) as channel:
        ann, bob = Client(channel, "ann"), Client(channel, "bob")
        names = [each.create(jobs.request(folder, 1)) for each in (ann, bob)]
        assert names[0] == names[1]  # names are the tenants' own, too
        for each in (ann, bob):
            assert each.wait(names[0]).done
    assert (folder / "made").read_text().count("s00") == 2


def test_operations_of_tenants_go_on_after_a_restart(
    local_store: LocalStore, engine: LocalEngine, folder: Path
) -> None:
    hold = folder / "s01.hold"
    hold.touch()
    with serving(local_store, engine, folder) as channel:
        name = Client(channel, "ann").create(jobs.request(folder, 2))
    hold.unlink()
    with serving(local_store, engine, folder) as channel:
        done = Client(channel, "ann").wait(name)
        assert done.done
        assert not done.HasField("error")


def test_a_tenant_that_cannot_be_opened_keeps_nobody_else_from_being_served(
    local_store: LocalStore, engine: LocalEngine, folder: Path
) -> None:
    local_store.put("tenants/acme/uploads/x", b"x")
    local_store.put("tenants/Strange_Name/x", b"x")
    with serving(local_store, engine, folder, broken="acme") as channel:
        ann, bob, root = (Client(channel, name) for name in PEOPLE)
        assert bob.operations() == root.operations() == []
        assert code_of(ann.operations) is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("file:///data/store", "file:///data/store/tenants/acme"),
        ("s3://bucket/?endpoint=http://h:1&region=r", "s3://bucket/tenants/acme?endpoint=http://h:1&region=r"),
        ("s3://bucket/a?endpoint=http://h:1", "s3://bucket/a/tenants/acme?endpoint=http://h:1"),
    ],
)  # fmt: skip
def test_a_tenants_address_follows_from_the_roots(url: str, expected: str) -> None:
    assert tenant_url(url, "acme") == expected
    assert tenant_of(expected) == "acme"
    assert tenant_of(url) == ""


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest) -> ObjectStore:
    fixture: ObjectStore = request.getfixturevalue(f"{request.param}_store")
    return fixture


def test_a_tenants_store_is_a_part_of_the_roots_and_no_more(store: ObjectStore) -> None:
    acme, rival = (open_store(tenant_url(store.url, name)) for name in ("acme", "rival"))
    acme.put("datasets/a/x", b"1")
    rival.put("datasets/b/x", b"2")
    store.put("datasets/c/x", b"3")
    assert list(acme.list("")) == ["datasets/a/x"]
    assert list(acme.children("datasets/")) == ["a"]
    assert store.get("tenants/acme/datasets/a/x") == b"1"
    assert sorted(store.children("tenants/")) == ["acme", "rival"]
    # Also where another process opens it by its address.
    assert open_store(acme.url).get("datasets/a/x") == b"1"
    assert tenant_of(acme.url) == "acme"
    for key in ("../rival/datasets/b/x", "../../datasets/c/x", "tenants/rival/datasets/b/x"):
        with pytest.raises(GranuloError) as caught:
            acme.get(key)
        assert caught.value.reason in (Reason.FIELD_INVALID, Reason.RESOURCE_NOT_FOUND)
