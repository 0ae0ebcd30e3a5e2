# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of roles: complete, and by it alone is decided who may call what."""

from importlib.resources import files

import pytest
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from hypothesis import given
from hypothesis import strategies as st

from granulo_core.errors import GranuloError, Reason
from granulo_core.security.access import METHODS, Identity, Role, check_allowed, highest
from granulo_core.security.authentication import Gate

_OPEN = {method for method, role in METHODS.items() if role is Role.NONE}


class OneToken:
    """Knows the token ``good``."""

    def __init__(self, role: Role) -> None:
        self.identity = Identity("somebody", role, "acme")

    def identify(self, token: str) -> Identity:
        if token != "good":
            raise GranuloError(Reason.TOKEN_INVALID, "unknown")
        return self.identity


def methods_of_the_contract() -> set[str]:
    found = descriptor_pb2.FileDescriptorSet.FromString(
        files("granulo").joinpath("descriptor_set.binpb").read_bytes()
    )
    others = [health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR]
    services = [(file.package, service) for file in found.file for service in file.service]
    names = {f"/{package}.{s.name}/{m.name}" for package, s in services for m in s.method}
    return names | {
        f"/{service.full_name}/{method.name}"
        for file in others
        for service in file.services_by_name.values()
        for method in service.methods
    }


def test_every_method_of_the_contract_has_a_role_and_no_other_has() -> None:
    assert set(METHODS) == methods_of_the_contract()


def test_nothing_but_the_answer_of_health_is_open() -> None:
    assert {"/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/List"} == _OPEN


@pytest.mark.parametrize("verb", ["Delete", "Promote", "Rollback"])
def test_what_cannot_be_undone_is_for_admins(verb: str) -> None:
    named = [m for m in METHODS if m.rpartition("/")[2].startswith(verb)]
    assert named
    assert {METHODS[method] for method in named} == {Role.ADMIN}


@pytest.mark.parametrize("verb", ["Create", "Segment", "Upload", "Import"])
def test_what_makes_something_is_not_for_readers(verb: str) -> None:
    named = [m for m in METHODS if m.rpartition("/")[2].startswith(verb)]
    named.remove(
        "/granulo.artifact.v1.ArtifactService/CreateDownloadUrl"
    ) if verb == "Create" else None
    assert named
    assert {METHODS[method] for method in named} == {Role.SUBMIT}


@given(st.sampled_from(sorted(METHODS)), st.sampled_from(list(Role)))
def test_a_role_may_what_the_table_says(method: str, role: Role) -> None:
    gate = Gate(OneToken(role))
    metadata = {"authorization": "Bearer good"}
    if METHODS[method] <= role:
        expected = "nobody" if method in _OPEN else "somebody"
        assert gate.admit(method, metadata).subject == expected
    else:
        with pytest.raises(GranuloError) as caught:
            gate.admit(method, metadata)
        assert caught.value.reason is Reason.ROLE_MISSING


def test_a_method_that_is_not_in_the_table_is_for_nobody() -> None:
    with pytest.raises(GranuloError, match="which nobody has"):
        check_allowed(Identity("boss", Role.ADMIN), "/granulo.render.v1.RenderService/New")


@given(st.text(), st.sampled_from(sorted(set(METHODS) - _OPEN)))
def test_no_header_but_the_right_one_lets_anybody_in(header: str, method: str) -> None:
    if header.strip().lower() != "bearer good":
        with pytest.raises(GranuloError) as caught:
            Gate(OneToken(Role.ADMIN)).admit(method, {"authorization": header})
        assert caught.value.reason in (Reason.TOKEN_MISSING, Reason.TOKEN_INVALID)


def test_without_authentication_everybody_may_everything() -> None:
    identity = Gate(None).admit("/granulo.render.v1.RenderService/DeleteDataset", {})
    assert (identity.role, identity.tenant) == (Role.ADMIN, "")


@pytest.mark.parametrize(
    ("names", "role"),
    [
        ([], Role.NONE),
        (["offline_access", "uma"], Role.NONE),
        (["read", "admin", "x"], Role.ADMIN),
        (["submit", "read"], Role.SUBMIT),
        (["ADMIN"], Role.NONE),
    ],
)
def test_the_highest_known_role_counts(names: list[str], role: Role) -> None:
    assert highest(names) is role
