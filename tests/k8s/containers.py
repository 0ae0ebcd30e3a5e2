# SPDX-License-Identifier: GPL-3.0-or-later
"""The kind overlay for real (`make test-containers`): images, pods, S3, mTLS, and four deaths.

    python tests/k8s/containers.py [--no-build] [--work DIR] [-- OPTION-OF-THE-BUILDER ...]

Builds the images, runs the overlay's pods with podman (see podlike.py) on Ceph's S3 gateway, works
through a study with ``granulo run`` over mTLS; then does so again in an empty store while a render
worker, the trainer, the segmenter and the S3 gateway are killed one after the other. The second run
must end with the same bytes, and nothing that was finished before a kill may be written again.

Needs root, podman, buildah (or docker) and netavark, kubectl, and Ceph as scripts/s3-up.sh does.
"""

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cluster
import podlike
import yaml
from cluster import ROOT, S3_KEY, S3Gateway, say, wait_until
from cluster_certificates import Authority

STUDY = """\
version: 1
render:
  - {recipe: sio2, count: 8, seed: 1, size_px: 256}
train:
  model: containers
  epochs: 6
  steps_per_epoch: 4
  batch_size: 2
  patch_px: 128
  deterministic: true
segment:
  heldout:
    - {recipe: tio2, count: 3, seed: 9, size_px: 512}
"""
NEEDED = ("podman", "kubectl", "ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "curl")
# What says when and how fast it was made, and TensorFlow's graph: its bytes differ between exports
# of the same weights. Weights, images, labels, tables and pictures are compared.
NOT_COMPARED = re.compile(
    r"(^|/)(report\.html|study\.json|figures\.json|MODEL_CARD\.md|fingerprint\.pb|saved_model\.pb"
    r"|tensorboard/.*)$"
)
# Names and digests that follow from the model's manifest, which has such files among its objects.
FOLLOWING = re.compile(r"(segmentations/seg|analyses/an)-[0-9a-f]{12}|sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Run:
    """What a run came to."""

    files: dict[str, str]
    """sha256 by path of what `granulo run` delivered."""
    things: dict[str, dict[str, str]]
    """Digest by key of the objects of every manifest, by the manifest's folder."""


def main() -> int:
    options, passed_on = parse(sys.argv[1:])
    if missing := [name for name in NEEDED if shutil.which(name) is None]:
        sys.stderr.write(f"containers: {', '.join(missing)} missing (see the top of this file)\n")
        return 2
    if not options.no_build:
        command = [sys.executable, str(ROOT / "scripts" / "images.py")]
        subprocess.run([*command, "--prefix", "localhost/granulo", "--", *passed_on], check=True)
    work = Path(options.work or tempfile.mkdtemp(prefix="granulo-containers-"))
    say(f"working in {work}")
    write_certificates(work)
    (work / "study.yaml").write_text(STUDY)
    overlay = subprocess.run(
        ["kubectl", "kustomize", ROOT / "deploy" / "k8s" / "overlays" / "kind"],
        capture_output=True,
        check=True,
    ).stdout
    resources = [item for item in yaml.safe_load_all(overlay) if item]
    with ExitStack() as stack:
        stack.enter_context(cluster.network())
        store = S3Gateway(work / "ceph")
        stack.callback(store.stop)
        with pods(resources, work, store, "first"):
            first = run_study(work, store, "first")
        say(f"first run: {len(first.files)} files, {len(first.things)} manifests")
        with pods(resources, work, store, "second"):
            second = run_study_with_deaths(work, store, "second")
    compare(first, second)
    say("PASSED")
    return 0


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Options, and what goes to the builder of images."""
    position = arguments.index("--") if "--" in arguments else len(arguments)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--no-build", action="store_true", help="the images are there already")
    parser.add_argument("--work", help="folder for everything that the run leaves")
    return parser.parse_args(arguments[:position]), list(arguments[position + 1 :])


def write_certificates(work: Path) -> None:
    """The Secrets that component tls has cert-manager make."""
    authority = Authority()
    hosts = [*podlike.PODS, "localhost", "127.0.0.1"]
    authority.write(work / "secrets" / "granulo-tls", "granulo", hosts, server=True)
    authority.write(work / "secrets" / "granulo-client-tls", "granulo-services", server=False)
    authority.write(work / "user", "granulo-user", server=False)
    (work / "secrets" / "granulo-auth").mkdir()


@contextmanager
def pods(
    resources: Sequence[dict[str, Any]], work: Path, store: S3Gateway, prefix: str
) -> Iterator[None]:
    """The overlay's pods over an empty part of the store."""
    folder = work / prefix
    folder.mkdir()
    (folder / "secrets").symlink_to(work / "secrets", target_is_directory=True)
    url = f"s3://{cluster.BUCKET}/{prefix}?endpoint={store.endpoint}"
    keys = {"GRANULO_S3_ACCESS_KEY": S3_KEY, "GRANULO_S3_SECRET_KEY": S3_KEY}
    place = podlike.Place(
        folder, cluster.SUBNET, {"GRANULO_STORE_URL": url}, {"granulo-store": keys}
    )
    with cluster.playing(podlike.convert(resources, place), place):
        yield


def run_study(work: Path, store: S3Gateway, prefix: str) -> Run:
    """``granulo run`` over mTLS, from this machine."""
    out = work / f"{prefix}-out"
    command = [str(Path(sys.executable).with_name("granulo")), "run", str(work / "study.yaml")]
    addresses = (
        f"{name}=localhost:{podlike.host_port(name)}"
        for name in ("render", "trainer", "segmenter", "analyzer")
    )
    command += ["--server", ",".join(addresses), "--out", str(out), "--json", "--quiet"]
    command += ["--tls-ca", str(work / "user" / "ca.crt")]
    command += ["--client-cert", str(work / "user" / "tls.crt")]
    command += ["--client-key", str(work / "user" / "tls.key")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"granulo run ended with {done.returncode}:\n{done.stderr}")
    files = {
        str(path.relative_to(out)): digest(path.name, path.read_bytes())
        for path in sorted(out.rglob("*"))
        if path.is_file() and not NOT_COMPARED.search(str(path.relative_to(out)))
    }
    return Run(files, things(store, prefix))


def digest(name: str, content: bytes) -> str:
    """Digest of a file, without the names and digests that follow from the model's manifest."""
    if name == "summary.json":
        content = FOLLOWING.sub("", content.decode()).encode()
    return hashlib.sha256(content).hexdigest()


def things(store: S3Gateway, prefix: str) -> dict[str, dict[str, str]]:
    """Digests of what is in the store, by its manifests."""
    found: dict[str, dict[str, str]] = {}
    for key in store.objects(f"{prefix}/"):
        if not key.endswith("/manifest.json"):
            continue
        folder = key.removesuffix("manifest.json")
        name = FOLLOWING.sub(r"\1", folder)
        if name in found:
            raise AssertionError(f"{name} is there twice: what one request makes was made again")
        found[name] = {
            item["key"].removeprefix(folder): item["digest"]
            for item in json.loads(store.read(f"{prefix}/{key}"))["objects"]
            if not NOT_COMPARED.search(item["key"]) and not item["key"].endswith("/summary.json")
        }
    return found


def run_study_with_deaths(work: Path, store: S3Gateway, prefix: str) -> Run:
    """The same while one after the other is killed; what was finished before stays untouched."""
    finished: dict[str, tuple[str, str]] = {}
    deaths = [
        ("render", "a render worker", lambda: cluster.kill_worker("render")),
        ("trainer", "the trainer", lambda: cluster.kill_container("trainer")),
        ("segmenter", "the segmenter", lambda: cluster.kill_container("segmenter")),
        ("analyzer", "the S3 gateway", lambda: outage(store)),
    ]
    failed: list[str] = []

    def kill_in_turn() -> None:
        try:
            for service, what, kill in deaths:
                wait_until(
                    f"work of {service}", lambda name=service: has_begun(store, prefix, name)
                )
                finished.update(shards(store, prefix))
                kill()
                say(f"{what} was killed with {len(finished)} finished objects in the store")
        except Exception as error:
            failed.append(f"{type(error).__name__}: {error}")

    killer = threading.Thread(target=kill_in_turn, daemon=True)
    killer.start()
    run = run_study(work, store, prefix)
    killer.join(60)
    if failed or killer.is_alive():
        raise RuntimeError(f"not everybody was killed: {failed or 'the run ended before'}")
    now = store.objects(f"{prefix}/")
    lost = sorted(key for key in finished if key not in now)
    again = sorted(key for key in finished if key in now and now[key] != finished[key])
    if lost or again:
        raise AssertionError(f"lost: {lost}; made again: {again}")
    say(f"none of {len(finished)} finished objects was lost or made again")
    return run


# What shows that a service is in the middle of its work.
SIGNS = {
    "render": ("operations/render/", "/shards/"),
    "trainer": ("models/", "/checkpoints/"),
    "segmenter": ("operations/segmenter/", ""),
    "analyzer": ("operations/analyzer/", ""),
}


def has_begun(store: S3Gateway, prefix: str, service: str) -> bool:
    """Whether a service has begun its work, and has something to lose where it takes long."""
    folder, part = SIGNS[service]
    return any(part in f"/{key}" for key in store.objects(f"{prefix}/{folder}"))


def shards(store: S3Gateway, prefix: str) -> dict[str, tuple[str, str]]:
    """Receipts of finished shards, and the objects that they speak of."""
    everything = store.objects(f"{prefix}/")
    receipts = [key for key in everything if key.startswith("operations/") and "/shards/" in key]
    spoken: set[str] = set(receipts)
    for key in receipts:
        receipt = json.loads(store.read(f"{prefix}/{key}"))
        spoken |= {item["key"] for item in receipt["objects"]}
    return {key: everything[key] for key in spoken if key in everything}


def outage(store: S3Gateway, length_s: float = 5.0) -> None:
    """The gateway dies and is away for a while."""
    store.kill()
    threading.Event().wait(length_s)
    store.start()


def compare(first: Run, second: Run) -> None:
    """Fail with every difference."""
    one = {**first.files, **_flat(first.things)}
    other = {**second.files, **_flat(second.things)}
    wrong = [
        f"{key}: {one.get(key)} and {other.get(key)}"
        for key in sorted({*one, *other})
        if one.get(key) != other.get(key)
    ]
    if wrong:
        raise AssertionError("the runs differ:\n" + "\n".join(wrong))
    say(f"{len(one)} files and objects of {len(first.things)} manifests are equal by digest")


def _flat(things_of_run: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    return {
        f"{name}{key}": value
        for name, objects in things_of_run.items()
        for key, value in objects.items()
    }


if __name__ == "__main__":
    sys.exit(main())
