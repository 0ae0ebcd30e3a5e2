# SPDX-License-Identifier: GPL-3.0-or-later
"""The kind overlay as pods for podman: what runs there is what the overlay says."""

import sys
from pathlib import Path

import kubernetes_validate
import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "k8s"))
import podlike
from k8s_overlays import build, environment, of_kind


@pytest.fixture
def place(tmp_path: Path) -> podlike.Place:
    return podlike.Place(
        folder=tmp_path,
        network="10.89.77",
        settings={"GRANULO_STORE_URL": "s3://granulo/first?endpoint=http://10.89.77.1:26780"},
        secrets={"granulo-store": {"GRANULO_S3_ACCESS_KEY": "k", "GRANULO_S3_SECRET_KEY": "s"}},
    )


def test_every_granulo_deployment_of_the_overlay_is_a_pod(place: podlike.Place) -> None:
    pods = podlike.convert(build("kind"), place)
    assert set(pods) == set(of_kind("kind", "Deployment")) - {"dev-s3"}
    for pod in pods.values():
        kubernetes_validate.validate(pod, "1.37", strict=True)


def test_environments_are_those_of_the_overlay_with_the_references_resolved(
    place: podlike.Place,
) -> None:
    pods = podlike.convert(build("kind"), place)
    for service in podlike.SERVICES:
        (container,) = pods[service]["spec"]["containers"]
        found = {item["name"]: item["value"] for item in container["env"]}
        expected = {**environment("kind", service), **place.settings}
        assert expected.items() <= found.items()
        assert found["GRANULO_S3_SECRET_KEY"] == "s"
        assert found["GRANULO_WORKERS"] == "2"
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["ports"][0]["hostIP"] == "127.0.0.1"
        assert "readinessProbe" not in container
    sync, server = pods["tf-serving"]["spec"]["containers"]
    assert sync["name"] == "model-sync"
    assert {"name": "GRANULO_STORE_URL", "value": place.settings["GRANULO_STORE_URL"]} in sync[
        "env"
    ]
    names = {item["name"] for item in server["env"]}
    assert {"GRANULO_TLS_CERT", "GRANULO_TLS_KEY", "GRANULO_TLS_CLIENT_CA"} <= names


def test_every_mount_has_a_folder_and_every_pod_knows_all_addresses(place: podlike.Place) -> None:
    for pod in podlike.convert(build("kind"), place).values():
        folders = {item["name"]: item["hostPath"]["path"] for item in pod["spec"]["volumes"]}
        assert all(path.startswith(str(place.folder)) for path in folders.values())
        for container in pod["spec"]["containers"]:
            assert {item["name"] for item in container["volumeMounts"]} <= folders.keys()
        aliases = {item["hostnames"][0]: item["ip"] for item in pod["spec"]["hostAliases"]}
        assert set(aliases) == set(podlike.PODS)
        assert len(set(aliases.values())) == len(aliases)
