# SPDX-License-Identifier: GPL-3.0-or-later
"""What the manifests set is what the programs start with: nothing missing or contradictory."""

import sys
from pathlib import Path
from typing import Any

import pytest

from granulo_analyzer.settings import AnalyzerSettings
from granulo_core.settings import CoreSettings
from granulo_render.settings import RenderSettings
from granulo_segmenter.settings import SegmenterSettings, SyncSettings
from granulo_trainer.settings import TrainerSettings

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "k8s"))
from cluster_certificates import Authority
from k8s_overlays import OVERLAYS, environment_of, of_kind, pods

SETTINGS: dict[str, type[CoreSettings]] = {
    "Deployment/render": RenderSettings,
    "Deployment/trainer": TrainerSettings,
    "Deployment/segmenter": SegmenterSettings,
    "Deployment/segmenter-inline": SegmenterSettings,
    "Deployment/analyzer": AnalyzerSettings,
    "Deployment/tf-serving": SyncSettings,
    "CronJob/gc": CoreSettings,
    "RayCluster/granulo-ray/render": RenderSettings,
    "RayCluster/granulo-ray/train": TrainerSettings,
    "RayCluster/granulo-ray/cpu": SegmenterSettings,
}
TOKENS = "- {sha256: '" + 64 * "a" + "', subject: pipeline, roles: [read, submit], tenant: ''}\n"


@pytest.fixture(scope="module")
def mounted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is mounted below /etc/granulo."""
    folder = tmp_path_factory.mktemp("etc")
    authority = Authority()
    authority.write(folder / "tls", "granulo", ["render"], server=True)
    authority.write(folder / "client-tls", "granulo-services", server=False)
    (folder / "auth").mkdir()
    (folder / "ray").mkdir()
    (folder / "ray" / "auth_token").write_text("secret")
    (folder / "auth" / "tokens.yaml").write_text(TOKENS)
    (folder / "auth" / "service.token").write_text("secret\n")
    return folder


def load(pod: Any, overlay: str, mounted: Path, monkeypatch: pytest.MonkeyPatch) -> CoreSettings:
    container = next(
        item for item in pod.running if item["name"] in ("service", "model-sync", "ray", "gc")
    )
    mounts = {item["mountPath"] for item in container["volumeMounts"]}
    for name, value in environment_of(overlay, container).items():
        if value.startswith("/etc/granulo/"):
            assert value.rpartition("/")[0] in mounts, f"{pod.owner}: {name} is not mounted"
        monkeypatch.setenv(name, value.replace("/etc/granulo", str(mounted)))
    return SETTINGS[pod.owner].load()


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_program_accepts_its_settings(
    overlay: str, mounted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = 0
    for pod in pods(overlay):
        if pod.owner not in SETTINGS:
            continue
        with monkeypatch.context() as patch:
            settings = load(pod, overlay, mounted, patch)
        assert settings.store_url.startswith("s3://granulo?endpoint=http"), pod.owner
        if pod.owner.startswith("Deployment/") and "tf-serving" not in pod.owner:
            served += 1
            # Who has no certificate gets nowhere, and who has none of our tokens neither.
            assert settings.tls_client_ca, pod.owner
            assert settings.auth == {"kind": "none", "single-gpu": "token"}.get(overlay, "oidc")
            assert settings.tls_client_cert, pod.owner
            assert not settings.reflection, pod.owner
        else:
            assert not settings.tls_key, f"{pod.owner} has no use for the servers' key"
    assert served == 5


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_servers_certificate_has_the_name_by_which_each_is_called(overlay: str) -> None:
    names = of_kind(overlay, "Certificate")["granulo-tls"]["spec"]["dnsNames"]
    for service in ("render", "trainer", "segmenter", "segmenter-inline", "analyzer", "tf-serving"):
        assert {service, f"{service}.granulo.svc"} <= set(names)
