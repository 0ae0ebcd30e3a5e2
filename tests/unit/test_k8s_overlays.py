# SPDX-License-Identifier: GPL-3.0-or-later
"""The overlays: what Kubernetes 1.33 and 1.37 accept, with all that they refer to."""

import functools
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))
from k8s_overlays import K8S, OVERLAYS, build, environment, of_kind, pods, references

VERSIONS = ("1.33", "1.37")

# The validator knows no custom resources: their kinds, versions, required and allowed fields.
# cert-manager 1.16+, Prometheus operator 0.80+, KEDA 2.16+, KubeRay 1.6+, Kueue 0.15+.
CUSTOM: dict[str, tuple[str, set[str], set[str]]] = {
    "Issuer": ("cert-manager.io/v1", set(), {"selfSigned", "ca"}),
    "Certificate": (
        "cert-manager.io/v1",
        {"secretName", "issuerRef.name", "issuerRef.kind", "issuerRef.group"},
        {"isCA", "commonName", "duration", "renewBefore", "privateKey", "usages", "dnsNames"},
    ),
    "ServiceMonitor": ("monitoring.coreos.com/v1", {"selector.matchLabels", "endpoints"}, set()),
    "PrometheusRule": ("monitoring.coreos.com/v1", {"groups"}, set()),
    "ScaledObject": (
        "keda.sh/v1alpha1",
        {"scaleTargetRef.name", "triggers", "minReplicaCount", "maxReplicaCount"},
        {"cooldownPeriod"},
    ),
    "RayCluster": (
        "ray.io/v1",
        {"rayVersion", "headGroupSpec.rayStartParams", "headGroupSpec.template",
         "workerGroupSpecs", "authOptions.mode"},
        {"enableInTreeAutoscaling", "autoscalerOptions"},
    ),
    "LocalQueue": ("kueue.x-k8s.io/v1beta2", {"clusterQueue"}, set()),
    "ClusterQueue": (
        "kueue.x-k8s.io/v1beta2", {"namespaceSelector", "resourceGroups"}, {"queueingStrategy"},
    ),
    "ResourceFlavor": ("kueue.x-k8s.io/v1beta2", set(), set()),
}  # fmt: skip
CLUSTER_SCOPED = {"Namespace", "ClusterQueue", "ResourceFlavor"}


@pytest.fixture(scope="module", autouse=True)
def _read_schemas_once() -> Any:
    """The validator would read the definitions of all of Kubernetes again for every resource."""
    read = kubernetes_validate.utils.schema_contents
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kubernetes_validate.utils, "schema_contents", functools.cache(read))
        yield


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_resource_is_valid_in_the_strict_sense(overlay: str, version: str) -> None:
    for item in build(overlay):
        name = f"{item['kind']}/{item['metadata']['name']}"
        if item["kind"] in CUSTOM:
            check_custom(name, item)
            continue
        assert fault_of(item, version) == "", name


def fault_of(item: dict[str, Any], version: str) -> str:
    """What is wrong with a resource, and where; empty where it is valid in the strict sense."""
    try:
        kubernetes_validate.validate(item, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return f"{'.'.join(map(str, error.path))}: {error.message}"
    return ""


def check_custom(name: str, item: dict[str, Any]) -> None:
    version, required, optional = CUSTOM[item["kind"]]
    assert item["apiVersion"] == version, name
    for path in required:
        node = item["spec"]
        for part in path.split("."):
            assert part in node, f"{name} lacks spec.{path}"
            node = node[part]
        assert node not in ("", [], {}) or path.endswith("Params"), f"{name}: spec.{path} is empty"
    allowed = optional | {path.split(".")[0] for path in required}
    assert item["spec"].keys() <= allowed, f"{name} has {item['spec'].keys() - allowed}"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_pod_of_a_custom_resource_is_valid_too(overlay: str, version: str) -> None:
    found = [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "pod", "labels": pod.labels},
            "spec": pod.spec,
        }
        for pod in pods(overlay)
    ]
    assert found
    assert [fault for item in found if (fault := fault_of(item, version))] == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_resource_is_in_the_namespace_that_enforces_the_restricted_profile(
    overlay: str,
) -> None:
    for item in build(overlay):
        scope = None if item["kind"] in CLUSTER_SCOPED else "granulo"
        assert item["metadata"].get("namespace") == scope, item["metadata"]["name"]
    labels = of_kind(overlay, "Namespace")["granulo"]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_secret_and_setting_that_a_pod_reads_comes_from_somewhere(overlay: str) -> None:
    examples = {
        item["metadata"]["name"]: set(item["stringData"])
        for item in yaml.safe_load_all((K8S / "secrets.example.yaml").read_text())
    }
    made = {name: set(item.get("data", {})) for name, item in of_kind(overlay, "Secret").items()}
    operators = {
        *(item["spec"]["secretName"] for item in of_kind(overlay, "Certificate").values()),
        # KubeRay keeps the cluster's token under the cluster's name.
        *of_kind(overlay, "RayCluster"),
    }
    maps = of_kind(overlay, "ConfigMap")
    for pod in pods(overlay):
        for reference in references(pod.spec, "Secret"):
            name = reference["name"]
            assert name in {*examples, *made, *operators}, f"{pod.owner} reads {name}"
            if "key" in reference:
                assert reference["key"] in examples.get(name, made.get(name, set()))
        for reference in references(pod.spec, "ConfigMap"):
            assert reference["name"] in maps, f"{pod.owner} reads {reference['name']}"
            if "key" in reference:
                assert reference["key"] in maps[reference["name"]]["data"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_secrets_of_an_installation_are_no_part_of_its_overlay(overlay: str) -> None:
    assert set(of_kind(overlay, "Secret")) == ({"granulo-store"} if overlay == "kind" else set())


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_file_that_a_setting_names_is_mounted(overlay: str) -> None:
    for service in ("render", "trainer", "segmenter", "segmenter-inline", "analyzer"):
        spec = next(pod for pod in pods(overlay) if pod.owner == f"Deployment/{service}").spec
        mounts = {item["mountPath"]: item["name"] for item in spec["containers"][0]["volumeMounts"]}
        volumes = {item["name"]: item for item in spec["volumes"]}
        for name, value in environment(overlay, service).items():
            if value.startswith("/etc/granulo/"):
                folder = value.rpartition("/")[0]
                assert folder in mounts, f"{service}: {name} names {value}, which nothing mounts"
                secret = volumes[mounts[folder]]["secret"]
                if "tls" in folder:
                    assert not secret.get("optional"), f"{name} needs {secret['secretName']}"


def test_each_component_is_used_by_an_overlay() -> None:
    used = set()
    for overlay in OVERLAYS:
        text = (K8S / "overlays" / overlay / "kustomization.yaml").read_text()
        used |= {path.rpartition("/")[2] for path in yaml.safe_load(text)["components"]}
    assert used == {path.name for path in (K8S / "components").iterdir()}


def test_each_manifest_belongs_to_a_kustomization() -> None:
    for folder in {path.parent for path in K8S.rglob("kustomization.yaml")}:
        text = (folder / "kustomization.yaml").read_text()
        unused = [
            path.name for path in folder.iterdir() if path.is_file() and path.name not in text
        ]
        assert set(unused) <= {"kustomization.yaml"}, f"{folder}: {unused}"
