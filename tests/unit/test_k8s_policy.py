# SPDX-License-Identifier: GPL-3.0-or-later
"""The rules that every pod of every overlay keeps."""

import importlib.metadata
import re
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from granulo_core.rpc.healthcheck import LIVENESS, READINESS
from granulo_segmenter.predictor import sidecar
from granulo_segmenter.predictor.versions import PACKAGED

sys.path.insert(0, str(Path(__file__).parent))
from k8s_overlays import OVERLAYS, RUNNERS, SERVICES, container, environment, of_kind, pod, pods

VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim",
    "projected", "secret",
}  # fmt: skip
LONGEST_START_S = 60
UNITS = {"": 1, "m": "0.001", "Mi": 2**20, "Gi": 2**30}

each_overlay = pytest.mark.parametrize("overlay", OVERLAYS)


@each_overlay
def test_every_pod_keeps_the_restricted_profile(overlay: str) -> None:
    for item in pods(overlay):
        spec, of_pod = item.spec, item.spec["securityContext"]
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys(), item.owner
        assert of_pod["runAsNonRoot"] is True, item.owner
        assert of_pod["runAsUser"] == 65532, item.owner
        assert of_pod["seccompProfile"] == {"type": "RuntimeDefault"}, item.owner
        for volume in spec.get("volumes", []):
            assert volume.keys() - {"name"} <= VOLUMES, f"{item.owner}: {volume['name']}"
        for each in item.containers:
            where = f"{item.owner}: {each['name']}"
            own = each["securityContext"]
            assert own["allowPrivilegeEscalation"] is False, where
            assert own["readOnlyRootFilesystem"] is True, where
            assert own["capabilities"] == {"drop": ["ALL"]}, where
            assert not {"privileged", "procMount", "runAsUser", "seccompProfile"} & own.keys()
            assert all("hostPort" not in port for port in each.get("ports", [])), where


@each_overlay
def test_no_pod_has_a_token_of_the_kubernetes_api_but_rays_head(overlay: str) -> None:
    for item in pods(overlay):
        if item.owner == "RayCluster/granulo-ray/head":
            # Its autoscaler asks for workers, with an account that the operator makes for it.
            assert not {"serviceAccountName", "automountServiceAccountToken"} & item.spec.keys()
            continue
        assert item.spec["automountServiceAccountToken"] is False, item.owner
        assert item.spec["serviceAccountName"] == "granulo", item.owner
    assert of_kind(overlay, "ServiceAccount")["granulo"]["automountServiceAccountToken"] is False
    for kind in ("Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"):
        assert of_kind(overlay, kind) == {}


@each_overlay
def test_every_image_has_a_version_and_ours_has_that_of_the_code(overlay: str) -> None:
    ours = importlib.metadata.version("granulo-core")
    for item in pods(overlay):
        for each in item.containers:
            name, _, version = each["image"].rpartition(":")
            assert re.fullmatch(r"v?\d+(\.\d+)+(-gpu)?", version), each["image"]
            if name.startswith("granulo/"):
                assert version.removesuffix("-gpu") == ours, each["image"]


@each_overlay
def test_every_container_asks_for_resources_and_has_limits(overlay: str) -> None:
    for item in pods(overlay):
        for each in item.containers:
            asked, limits = each["resources"]["requests"], each["resources"]["limits"]
            for name in ("cpu", "memory"):
                where = f"{item.owner}: {each['name']}: {name}"
                assert 0 < quantity(asked[name]) <= quantity(limits[name]), where
            assert asked.get("nvidia.com/gpu") == limits.get("nvidia.com/gpu"), item.owner
    for service in SERVICES:
        # Not the node's cores: the engine starts a worker for each.
        workers = [e for e in container(overlay, service)["env"] if e["name"] == "GRANULO_WORKERS"]
        assert workers[0]["valueFrom"]["resourceFieldRef"]["resource"] == "limits.cpu"


def quantity(value: object) -> Decimal:
    found = re.fullmatch(r"(\d+)(m|Mi|Gi)?", str(value))
    assert found, f"{value} is no quantity of ours"
    return Decimal(found[1]) * Decimal(UNITS[found[2] or ""])


@each_overlay
def test_every_container_that_stays_has_three_probes_and_time_to_start(overlay: str) -> None:
    for item in pods(overlay):
        if item.owner.startswith("CronJob/"):
            assert item.spec["restartPolicy"] == "Never"
            continue
        for each in item.running:
            where = f"{item.owner}: {each['name']}"
            assert {"startupProbe", "readinessProbe", "livenessProbe"} <= each.keys(), where
            start = each["startupProbe"]
            assert start["periodSeconds"] * start["failureThreshold"] >= LONGEST_START_S, where
            # Without curl in the images, and with the images of others as they are.
            assert all("exec" not in each[probe] for probe in each if probe.endswith("Probe"))


@each_overlay
def test_readiness_looks_at_dependencies_and_liveness_never_does(overlay: str) -> None:
    for service in SERVICES:
        each = container(overlay, service)
        port = int(environment(overlay, service)["GRANULO_HEALTH_LISTEN"].rpartition(":")[2])
        assert each["startupProbe"]["grpc"] == {"port": port, "service": LIVENESS}
        assert each["livenessProbe"]["grpc"] == {"port": port, "service": LIVENESS}
        assert each["readinessProbe"]["grpc"] == {"port": port, "service": READINESS}
    sync = container(overlay, "tf-serving", "model-sync")
    assert sync["startupProbe"]["grpc"]["service"] == sidecar.SERVICE
    assert "service" not in sync["livenessProbe"]["grpc"]


@each_overlay
def test_the_model_server_is_asked_for_a_model_that_every_installation_has(overlay: str) -> None:
    server = container(overlay, "tf-serving", "tf-serving")
    for probe in ("startupProbe", "readinessProbe"):
        assert server[probe]["httpGet"]["path"] == f"/v1/models/{PACKAGED}"
    # model-sync comes first and stays: the server starts on a filled folder.
    assert pod(overlay, "tf-serving").spec["initContainers"][-1]["name"] == "model-sync"
    root = environment(overlay, "tf-serving", "model-sync")["GRANULO_SYNC_ROOT"]
    assert f"--model_config_file={root}/models.config" in server["args"]


@each_overlay
def test_what_runs_operations_is_one_pod_that_ends_before_its_successor_starts(
    overlay: str,
) -> None:
    deployments = of_kind(overlay, "Deployment")
    running = {
        name
        for name, item in deployments.items()
        if item["metadata"]["labels"].get("granulo.io/runs") == "operations"
    }
    assert running == set(RUNNERS)
    for name in running:
        assert deployments[name]["spec"]["replicas"] == 1
        assert deployments[name]["spec"]["strategy"] == {"type": "Recreate"}
        assert environment(overlay, name).get("GRANULO_RUNS_OPERATIONS", "true") == "true"
    assert environment(overlay, "segmenter-inline")["GRANULO_RUNS_OPERATIONS"] == "false"


@each_overlay
def test_only_what_answers_calls_is_scaled_and_by_one_scaler(overlay: str) -> None:
    scaled = [
        item["spec"]["scaleTargetRef"]["name"]
        for kind in ("HorizontalPodAutoscaler", "ScaledObject")
        for item in of_kind(overlay, kind).values()
    ]
    assert len(scaled) == len(set(scaled))
    assert set(scaled) <= {"segmenter-inline", "tf-serving"}
    for name in scaled:
        assert "replicas" not in of_kind(overlay, "Deployment")[name]["spec"], name
    for name in ("segmenter-inline", "tf-serving"):
        # gRPC connections stay where they are: clients must see every pod's address.
        assert of_kind(overlay, "Service")[name]["spec"]["clusterIP"] == "None"


@each_overlay
def test_pods_of_granulo_are_spread_over_nodes_or_zones(overlay: str) -> None:
    for name in (*SERVICES, "tf-serving"):
        item = pod(overlay, name)
        for constraint in item.spec["topologySpreadConstraints"]:
            selected = constraint["labelSelector"]["matchLabels"]
            assert selected.items() <= item.labels.items(), item.owner


@each_overlay
def test_every_service_finds_its_pod_and_its_ports(overlay: str) -> None:
    everywhere = list(pods(overlay))
    for name, item in of_kind(overlay, "Service").items():
        selector = item["spec"]["selector"]
        found = [each for each in everywhere if selector.items() <= each.labels.items()]
        assert len(found) == 1, name
        ports = {port["name"] for each in found[0].containers for port in each.get("ports", [])}
        assert {port["targetPort"] for port in item["spec"]["ports"]} <= ports, name


def test_render_and_training_pools_are_apart_and_cost_nothing_while_idle() -> None:
    cluster = of_kind("production", "RayCluster")["granulo-ray"]["spec"]
    assert cluster["enableInTreeAutoscaling"] is True
    groups = {group["groupName"]: group for group in cluster["workerGroupSpecs"]}
    assert set(groups) == {"render", "train", "cpu"}
    assert all(group["minReplicas"] == group["replicas"] == 0 for group in groups.values())
    cards = {}
    for name in ("render", "train"):
        spec = groups[name]["template"]["spec"]
        assert spec["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1
        required = spec["affinity"]["nodeAffinity"][
            "requiredDuringSchedulingIgnoredDuringExecution"
        ]
        (expression,) = required["nodeSelectorTerms"][0]["matchExpressions"]
        cards[name] = set(expression["values"])
    assert not cards["render"] & cards["train"]
    # NVIDIA's A100, H100 and H200 have no ray-tracing cores.
    assert not [card for card in cards["render"] if re.search(r"A100|H100|H200", card)]
