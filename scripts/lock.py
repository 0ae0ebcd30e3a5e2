# SPDX-License-Identifier: GPL-3.0-or-later
"""Compile the hash-pinned locks (`make lock`); `make lock UPGRADE=1` takes newer versions.

requirements.lock        all distributions and the development tools: laptop, tests, CI
locks/<service>.txt      what one service's image needs, in the versions of requirements.lock
locks/<service>-gpu.txt  the same with CUDA TensorFlow
locks/standalone.txt     all services in one image; -gpu as above
locks/model-sync.txt     what all services share, which is all that the model sync needs
locks/build.txt          what builds our own distributions in the images
locks/protos.txt         the contract's code generator and buf

No lock names a package index: each machine's pip configuration says where packages come from.
"""

import argparse
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SERVICES = ("render", "trainer", "segmenter", "analyzer")
GPU_SERVICES = ("trainer", "segmenter")
# All images that run tasks can be nodes of a Ray cluster, or submit to one.
RAY = ("--extra", "ray")
SHARED = ("protos/pyproject.toml", "services/core/pyproject.toml")


def project(service: str) -> str:
    return f"services/{service}/pyproject.toml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--upgrade", action="store_true", help="take newer versions")
    upgrade = ["--upgrade"] if parser.parse_args().upgrade else []
    every = [*SHARED, "client/pyproject.toml", *map(project, SERVICES), project("standalone")]
    # With the trainer's extra, so that the tests convert and compare real networks.
    whole = (*variant("cpu"), "--extra", "onnx", "--extra", "ray")
    compile_lock("requirements.lock", "requirements.in", *every, *upgrade, *whole)
    pinned = ["--constraint", "requirements.lock"]
    for service in SERVICES:
        extra = variant("cpu") if service in GPU_SERVICES else variant()
        compile_lock(f"locks/{service}.txt", *SHARED, project(service), *pinned, *extra, *RAY)
    for service in GPU_SERVICES:
        arguments = (*SHARED, project(service), *pinned, *variant("gpu"), *RAY)
        compile_lock(f"locks/{service}-gpu.txt", *arguments)
    together = (*SHARED, *map(project, SERVICES), project("standalone"))
    compile_lock("locks/standalone.txt", *together, *pinned, *variant("cpu"), *RAY)
    compile_lock("locks/standalone-gpu.txt", *together, *pinned, *variant("gpu"), *RAY)
    compile_lock("locks/model-sync.txt", *SHARED, *pinned, *variant())
    compile_lock("locks/build.txt", "locks/build.in", *pinned)
    compile_lock("locks/protos.txt", "locks/protos.in", *upgrade)


def variant(name: str = "") -> list[str]:
    """Return the options that choose the TensorFlow wheel."""
    overrides = ["--override", "locks/overrides.txt"]
    if name != "gpu":
        overrides += ["--override", "locks/overrides-cpu.txt"]
    return overrides + (["--extra", name] if name else [])


def compile_lock(target: str, *arguments: str) -> None:
    sys.stdout.write(f"{target}\n")
    sys.stdout.flush()
    uv = str(Path(sysconfig.get_path("scripts")) / "uv")
    command = [uv, "pip", "compile", "--quiet", "--python-version", "3.11"]
    command += ["--python-platform", "x86_64-manylinux_2_28"]
    command += ["--generate-hashes", "--no-emit-index-url", "--no-emit-find-links", "--no-build"]
    command += ["--custom-compile-command", "make lock", "--output-file", target, *arguments]
    subprocess.run(command, cwd=ROOT, check=True)


if __name__ == "__main__":
    main()
