# SPDX-License-Identifier: GPL-3.0-or-later
"""The kind overlay's Deployments as pods for ``podman kube play``.

podman knows less than Kubernetes:

- Environments are resolved, because podman reads no hashed ConfigMaps and few kinds of references.
- Volumes become folders of this machine: what an ``emptyDir`` holds outlives a container, as there.
- Services become host names: every pod has an address of its own and knows those of the others.
- Probes are left out (podman's need systemd); the test asks the same command instead.
- In the place of TensorFlow Serving, whose image is not to be had here, stands the embedded model
  server, which speaks the same protocol; model-sync fills its folder as in the overlay.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SERVICES = ("render", "trainer", "segmenter", "segmenter-inline", "analyzer")
PODS = (*SERVICES, "tf-serving")
USER = 65532
_FIRST_ADDRESS = 10
_FIRST_PORT = 18080
_CONTAINER_KEYS = ("name", "image", "command", "args", "resources", "securityContext")


@dataclass(frozen=True)
class Place:
    """Where the pods are put, and what they find there."""

    folder: Path
    """``secrets/<name>/<key>`` are mounted; ``volumes/<pod>/<volume>`` become the pods' folders."""
    network: str
    """First three numbers of the pods' network, e.g. ``10.89.77``."""
    settings: Mapping[str, str]
    """Settings that replace the overlay's, e.g. the store's address."""
    secrets: Mapping[str, Mapping[str, str]]
    """Secrets that are read as environment variables, by name."""

    def address(self, pod: str) -> str:
        """IP address of a pod."""
        return f"{self.network}.{_FIRST_ADDRESS + PODS.index(pod)}"

    def source(self, pod: str, volume: Mapping[str, Any]) -> Path:
        """The folder that stands for a volume."""
        if "secret" in volume:
            return self.folder / "secrets" / str(volume["secret"]["secretName"])
        return self.folder / "volumes" / pod / str(volume["name"])


def host_port(service: str) -> int:
    """Loopback port of this machine where a service answers."""
    return _FIRST_PORT + SERVICES.index(service)


def convert(resources: Sequence[Mapping[str, Any]], place: Place) -> dict[str, dict[str, Any]]:
    """Pods by name, made from a built overlay."""
    maps = {
        item["metadata"]["name"]: {**item["data"], **place.settings}
        for item in resources
        if item["kind"] == "ConfigMap"
    }
    templates = {
        item["metadata"]["name"]: item["spec"]["template"]
        for item in resources
        if item["kind"] == "Deployment"
    }
    pods = {name: _pod(name, templates[name], maps, place) for name in SERVICES}
    pods["tf-serving"] = _model_pod(templates["tf-serving"], pods["segmenter"], maps, place)
    return pods


def _pod(
    name: str, template: Mapping[str, Any], maps: Mapping[str, Mapping[str, str]], place: Place
) -> dict[str, Any]:
    spec = template["spec"]
    sidecars = [item for item in spec.get("initContainers", []) if item.get("restartPolicy")]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": dict(template["metadata"]["labels"])},
        "spec": {
            # podman has no fsGroup: the folders belong to the user.
            "securityContext": {"runAsUser": USER, "runAsGroup": USER, "runAsNonRoot": True},
            "restartPolicy": "OnFailure",
            "terminationGracePeriodSeconds": spec.get("terminationGracePeriodSeconds", 30),
            "hostAliases": [{"ip": place.address(pod), "hostnames": [pod]} for pod in PODS],
            "containers": [
                _container(name, item, maps, place) for item in (*sidecars, *spec["containers"])
            ],
            "volumes": [_volume(name, item, place) for item in spec["volumes"]],
        },
    }


def _model_pod(
    template: Mapping[str, Any],
    segmenter: Mapping[str, Any],
    maps: Mapping[str, Mapping[str, str]],
    place: Place,
) -> dict[str, Any]:
    """model-sync as it is, and the segmenter's image with the embedded server for the other."""
    pod = _pod("tf-serving", template, maps, place)
    like = segmenter["spec"]["containers"][0]
    mounted = [
        item for item in like["volumeMounts"] if item["name"] in ("tmp", "tls", "client-tls")
    ]
    server = {
        **{key: like[key] for key in ("image", "env", "resources", "securityContext")},
        "name": "tf-serving",
        "command": ["python", "-m", "granulo_segmenter.predictor.embedded"],
        "args": ["--listen=0.0.0.0:8500", "--base=/models", "--threads=2"],
        "volumeMounts": [*mounted, {"name": "models", "mountPath": "/models", "readOnly": True}],
    }
    pod["spec"]["containers"] = [
        item for item in pod["spec"]["containers"] if item["name"] == "model-sync"
    ]
    pod["spec"]["containers"].append(server)
    known = {item["name"] for item in pod["spec"]["volumes"]}
    needed = {item["name"] for item in server["volumeMounts"]}
    pod["spec"]["volumes"] += [
        item for item in segmenter["spec"]["volumes"] if item["name"] in needed - known
    ]
    return pod


def _container(
    pod: str, given: Mapping[str, Any], maps: Mapping[str, Mapping[str, str]], place: Place
) -> dict[str, Any]:
    made = {key: given[key] for key in _CONTAINER_KEYS if key in given}
    made["image"] = f"localhost/{given['image']}"
    made["env"] = [
        {"name": name, "value": value}
        for name, value in sorted(_environment(given, maps, place).items())
    ]
    made["volumeMounts"] = [dict(item) for item in given["volumeMounts"]]
    if pod in SERVICES:
        made["ports"] = [{"containerPort": 8080, "hostPort": host_port(pod), "hostIP": "127.0.0.1"}]
    return made


def _environment(
    given: Mapping[str, Any], maps: Mapping[str, Mapping[str, str]], place: Place
) -> dict[str, str]:
    found: dict[str, str] = {}
    for source in given.get("envFrom", []):
        if "configMapRef" in source:
            found |= maps[source["configMapRef"]["name"]]
        else:
            found |= place.secrets[source["secretRef"]["name"]]
    for item in given.get("env", []):
        found[item["name"]] = _value(item, given, maps, place)
    return found


def _value(
    item: Mapping[str, Any],
    given: Mapping[str, Any],
    maps: Mapping[str, Mapping[str, str]],
    place: Place,
) -> str:
    if "value" in item:
        return str(item["value"])
    ((kind, reference),) = item["valueFrom"].items()
    if kind == "configMapKeyRef":
        return maps[reference["name"]][reference["key"]]
    if kind == "secretKeyRef":
        return place.secrets[reference["name"]][reference["key"]]
    if kind == "resourceFieldRef" and reference["resource"] == "limits.cpu":
        return str(given["resources"]["limits"]["cpu"])
    raise ValueError(f"{item['name']}: podlike does not know {kind}")


def _volume(pod: str, given: Mapping[str, Any], place: Place) -> dict[str, Any]:
    path = str(place.source(pod, given))
    return {"name": given["name"], "hostPath": {"path": path, "type": "Directory"}}
