# SPDX-License-Identifier: GPL-3.0-or-later
"""Names in the manifests are those of the code: settings, metrics, distributions, libraries."""

import importlib.util
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from granulo_analyzer.settings import AnalyzerSettings
from granulo_core.store.s3 import ACCESS_KEY_VARIABLE, SECRET_KEY_VARIABLE
from granulo_core.telemetry.live import described
from granulo_render.settings import RenderSettings
from granulo_segmenter.settings import SegmenterSettings, SyncSettings
from granulo_trainer.settings import TrainerSettings

sys.path.insert(0, str(Path(__file__).parent))
from k8s_overlays import K8S, OVERLAYS, ROOT, of_kind, pods

# In a cluster TensorFlow Serving is the model server, which counts for itself.
METRICS = {name for name in described() if not name.startswith("granulo_model_")}
SERVICES = ("render", "trainer", "segmenter", "analyzer", "model-sync", "standalone")
DOCKERFILE = (ROOT / "deploy" / "docker" / "Dockerfile").read_text()


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_variable_is_a_setting(overlay: str) -> None:
    settings = (RenderSettings, TrainerSettings, SegmenterSettings, SyncSettings, AnalyzerSettings)
    fields = set().union(*(each.model_fields for each in settings))
    known = {f"GRANULO_{name.upper()}" for name in fields}
    known |= {ACCESS_KEY_VARIABLE, SECRET_KEY_VARIABLE}
    used = set()
    for kind in ("ConfigMap", "Secret"):
        for name, item in of_kind(overlay, kind).items():
            if name.startswith(("granulo-config", "granulo-store")):
                used |= set(item["data"])
    for pod in pods(overlay):
        for each in pod.containers:
            used |= {item["name"] for item in each.get("env", [])}
    assert {name for name in used if name.startswith("GRANULO_")} <= known
    assert {"GRANULO_STORE_URL", "GRANULO_LISTEN", "GRANULO_MODEL_SERVER"} <= used


def expressions() -> dict[str, str]:
    """Every query of Prometheus, by what asks it."""
    found = {
        rule["alert"]: rule["expr"]
        for item in of_kind("production", "PrometheusRule").values()
        for group in item["spec"]["groups"]
        for rule in group["rules"]
    }
    for name, item in of_kind("production", "ScaledObject").items():
        found[name] = item["spec"]["triggers"][0]["metadata"]["query"]
    for panel in dashboard()["panels"]:
        for target in panel["targets"]:
            found[f"{panel['title']} {target['refId']}"] = target["expr"]
    return found


def dashboard() -> dict[str, Any]:
    text = of_kind("production", "ConfigMap")["granulo-dashboard"]["data"]["granulo.json"]
    document: dict[str, Any] = json.loads(text)
    return document


def test_alerts_dashboard_and_scalers_ask_for_metrics_that_there_are() -> None:
    histograms = {
        f"{name}_{part}"
        for name in METRICS
        if name.endswith("_seconds")
        for part in ("bucket", "sum", "count")
    }
    asked = expressions()
    assert len(asked) > 20
    for who, expression in asked.items():
        named = set(re.findall(r"\bgranulo_[a-z_]+", expression))
        assert named <= METRICS - {n for n in METRICS if n.endswith("_seconds")} | histograms, who
        assert named or expression.startswith("up{"), who
        assert expression.count("(") == expression.count(")"), who


def test_the_dashboard_shows_every_metric_without_overlaps() -> None:
    panels = dashboard()["panels"]
    shown = " ".join(target["expr"] for panel in panels for target in panel["targets"])
    assert [name for name in METRICS if name not in shown] == []
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24, panel["title"]
        taken |= cells


def test_every_alert_and_component_is_explained() -> None:
    page = (ROOT / "docs" / "operations" / "kubernetes.md").read_text()
    (rules,) = of_kind("production", "PrometheusRule").values()
    alerts = {rule["alert"] for group in rules["spec"]["groups"] for rule in group["rules"]}
    assert {name for name in alerts if f"| `{name}` |" not in page} == set()
    components = {path.name for path in (K8S / "components").iterdir()}
    assert {name for name in components if f"| `{name}` |" not in page} == set()


def test_the_quota_of_the_queue_admits_the_largest_cluster() -> None:
    cluster = of_kind("production", "RayCluster")["granulo-ray"]["spec"]
    needed = {"cpu": 0.0, "memory": 0.0, "nvidia.com/gpu": 0.0}
    groups = [(1, cluster["headGroupSpec"])]
    groups += [(group["maxReplicas"], group) for group in cluster["workerGroupSpecs"]]
    asked = [(1, cluster["autoscalerOptions"]["resources"]["requests"])]
    asked += [
        (count, group["template"]["spec"]["containers"][0]["resources"]["requests"])
        for count, group in groups
    ]
    for count, requests in asked:
        for name in needed:
            needed[name] += count * amount(requests.get(name, 0))
    (queue,) = of_kind("production", "ClusterQueue").values()
    (flavour,) = queue["spec"]["resourceGroups"][0]["flavors"]
    quota = {item["name"]: amount(item["nominalQuota"]) for item in flavour["resources"]}
    assert {name for name in needed if needed[name] > quota[name]} == set()


def amount(text: object) -> float:
    factors = {"m": 1e-3, "Mi": 2**20, "Gi": 2**30}
    found = re.fullmatch(r"(\d+)(m|Mi|Gi)?", str(text))
    assert found
    return float(found[1]) * factors.get(found[2] or "", 1)


def script(name: str) -> Any:
    place = ROOT / "scripts" / f"{name}.py"
    specification = importlib.util.spec_from_file_location(f"granulo_script_{name}", place)
    assert specification
    assert specification.loader
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_the_render_image_has_the_libraries_that_the_set_up_installs() -> None:
    block = re.search(r"FROM base AS render\n(.*?)\nFROM ", DOCKERFILE, re.DOTALL)
    assert block
    installed = re.search(r"--no-install-recommends \\\n\s+(.*?) \\\n", block[1])
    assert installed
    assert set(installed[1].split()) == set(script("setup").SYSTEM_LIBRARIES.values())


def test_every_service_has_an_image_a_lock_and_a_stage() -> None:
    assert script("images").SERVICES == SERVICES
    for service in SERVICES:
        assert f" AS {service}\n" in DOCKERFILE
        assert (ROOT / "locks" / f"{service}.txt").is_file()
    assert script("images").services_of("gpu") == ["trainer", "segmenter", "standalone"]
    used = {
        each["image"].partition(":")[0].removeprefix("granulo/")
        for overlay in OVERLAYS
        for pod in pods(overlay)
        for each in pod.containers
        if each["image"].startswith("granulo/")
    }
    assert used == set(SERVICES)


def test_images_run_without_root_and_without_tools_to_build_or_fetch_software() -> None:
    final = DOCKERFILE[DOCKERFILE.index(" AS base\n") :]
    assert final.rstrip().endswith("USER 65532:65532")
    added = re.findall(r"apt-get install.*?(?=&&)", final, re.DOTALL)
    assert len(added) == 1
    assert not re.search(r"curl|wget|gcc|build-essential|git\b", added[0])
    assert "HEALTHCHECK" in final
    base = re.search(r"ARG PYTHON=(\S+)", DOCKERFILE)
    assert base
    assert re.fullmatch(r"docker.io/library/python:3\.11\.\d+-slim-bookworm", base[1])
    assert 'base.name="${PYTHON}"' in DOCKERFILE


def test_the_build_sees_only_what_the_dockerfile_copies() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    seen = {line[1:] for line in lines if line.startswith("!")}
    copied = re.findall(r"^COPY (?!--from)(\S+)", DOCKERFILE, re.MULTILINE)
    assert seen == {path.split("/")[0] for path in copied}
    assert "*" in lines
