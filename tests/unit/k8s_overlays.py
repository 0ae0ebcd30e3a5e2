# SPDX-License-Identifier: GPL-3.0-or-later
"""What the overlays under deploy/k8s come to, for the tests of their rules."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
K8S = ROOT / "deploy" / "k8s"
OVERLAYS = ("kind", "single-gpu", "production")
SERVICES = ("render", "trainer", "segmenter", "segmenter-inline", "analyzer")
RUNNERS = ("render", "trainer", "segmenter", "analyzer")
_OLDEST = (1, 27)
"""kubectl whose kustomize knows `labels` with templates."""


@dataclass(frozen=True)
class Pod:
    """A pod of an overlay."""

    owner: str
    """``Deployment/render``, ``RayCluster/granulo-ray/train`` …"""
    labels: dict[str, str]
    spec: dict[str, Any]

    @property
    def containers(self) -> list[dict[str, Any]]:
        """All, with init containers."""
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]

    @property
    def running(self) -> list[dict[str, Any]]:
        """Those that run as long as the pod does."""
        sidecars = [c for c in self.spec.get("initContainers", []) if c.get("restartPolicy")]
        return [*sidecars, *self.spec["containers"]]


@cache
def build(overlay: str) -> tuple[dict[str, Any], ...]:
    """All resources of an overlay, as ``kubectl apply -k`` would send them."""
    if reason := _unusable():
        pytest.skip(reason)
    command = ["kubectl", "kustomize", str(K8S / "overlays" / overlay)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, f"kustomize warns: {done.stderr}"
    return tuple(item for item in yaml.safe_load_all(done.stdout) if item)


@cache
def _unusable() -> str:
    if shutil.which("kubectl") is None:
        return "kubectl is missing, which builds the overlays (any from 1.27 on)"
    command = ["kubectl", "version", "--client"]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    found = re.search(r"v(\d+)\.(\d+)", said)
    if not found or (int(found[1]), int(found[2])) < _OLDEST:
        return f"kubectl 1.27 or newer is needed to build the overlays; this one says {said!r}"
    return ""


def of_kind(overlay: str, kind: str) -> dict[str, dict[str, Any]]:
    """Resources of one kind by name."""
    return {item["metadata"]["name"]: item for item in build(overlay) if item["kind"] == kind}


def pods(overlay: str) -> Iterator[Pod]:
    """Every pod that an overlay asks for, those of the Ray cluster included."""
    for item in build(overlay):
        name = item["metadata"]["name"]
        if item["kind"] == "Deployment":
            yield _pod(f"Deployment/{name}", item["spec"]["template"])
        elif item["kind"] == "CronJob":
            template = item["spec"]["jobTemplate"]["spec"]["template"]
            yield _pod(f"CronJob/{name}", template)
        elif item["kind"] == "RayCluster":
            yield _pod(f"RayCluster/{name}/head", item["spec"]["headGroupSpec"]["template"])
            for group in item["spec"]["workerGroupSpecs"]:
                yield _pod(f"RayCluster/{name}/{group['groupName']}", group["template"])
        else:
            assert "template" not in item.get("spec", {}), f"{item['kind']} has pods: add it here"


def _pod(owner: str, template: dict[str, Any]) -> Pod:
    labels = dict(template["metadata"]["labels"])
    if owner.startswith("RayCluster/"):
        # The operator's own label.
        labels["ray.io/cluster"] = owner.split("/")[1]
    return Pod(owner, labels, template["spec"])


def pod(overlay: str, deployment: str) -> Pod:
    """The pod of one Deployment."""
    return next(item for item in pods(overlay) if item.owner == f"Deployment/{deployment}")


def container(overlay: str, deployment: str, name: str = "service") -> dict[str, Any]:
    """One container of a Deployment."""
    found = pod(overlay, deployment).containers
    return next(item for item in found if item["name"] == name)


def environment(overlay: str, deployment: str, name: str = "service") -> dict[str, str]:
    """What a Deployment's container finds in its environment; secrets are left out."""
    return environment_of(overlay, container(overlay, deployment, name))


def environment_of(overlay: str, given: dict[str, Any]) -> dict[str, str]:
    """What a container finds in its environment; secrets are left out."""
    maps = of_kind(overlay, "ConfigMap")
    values: dict[str, str] = {}
    for source in given.get("envFrom", []):
        if reference := source.get("configMapRef"):
            values |= maps[reference["name"]]["data"]
    for item in given.get("env", []):
        if "value" in item:
            values[item["name"]] = item["value"]
        elif reference := item["valueFrom"].get("configMapKeyRef"):
            values[item["name"]] = maps[reference["name"]]["data"][reference["key"]]
    return values


def references(node: Any, kind: str) -> Iterator[dict[str, Any]]:
    """Every reference to a ``Secret`` or ``ConfigMap`` anywhere below a node."""
    keys = {
        "Secret": ("secretRef", "secretKeyRef", "secret"),
        "ConfigMap": ("configMapRef", "configMapKeyRef", "configMap"),
    }[kind]
    if isinstance(node, dict):
        for key, value in node.items():
            if key in keys and isinstance(value, dict):
                yield {**value, "name": value.get("name") or value.get("secretName")}
            yield from references(value, kind)
    elif isinstance(node, list):
        for item in node:
            yield from references(item, kind)
