# SPDX-License-Identifier: GPL-3.0-or-later
"""Build the container images (`make images`) with buildah or docker, and print their sizes.

    python scripts/images.py [SERVICE ...] [--variant gpu] [--prefix REGISTRY/NAME] [-- OPTION ...]

Without a service all are built. What stands after ``--`` goes to the builder as it is, e.g. a
mirror of the base image: ``-- --build-arg PYTHON=mirror.example.org/python:3.11.15-slim-bookworm``.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SERVICES = ("render", "trainer", "segmenter", "analyzer", "model-sync", "standalone")
DOCKERFILE = "deploy/docker/Dockerfile"


def main() -> None:
    options, passed_on = parse(sys.argv[1:])
    builder = next((name for name in ("buildah", "docker") if shutil.which(name)), None)
    if builder is None:
        sys.exit("images: neither buildah nor docker is installed")
    sizes = {}
    for service in options.services or services_of(options.variant):
        image = image_name(service, options.variant, options.prefix)
        sys.stdout.write(f"== {image}\n")
        sys.stdout.flush()
        build(builder, service, options.variant, image, passed_on)
        sizes[image] = size_mib(builder, image)
    for image, mib in sizes.items():
        sys.stdout.write(f"{image:48} {mib:7.0f} MiB\n")


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return the options, and what goes to the builder."""
    passed_on: list[str] = []
    if "--" in arguments:
        position = arguments.index("--")
        arguments, passed_on = arguments[:position], arguments[position + 1 :]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("services", nargs="*", metavar="SERVICE", help=", ".join(SERVICES))
    parser.add_argument("--variant", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--prefix", default="granulo", help="what stands before /SERVICE:VERSION")
    options = parser.parse_args(arguments)
    if unknown := set(options.services) - set(services_of(options.variant)):
        parser.error(f"there is no {options.variant} image of {', '.join(sorted(unknown))}")
    return options, passed_on


def services_of(variant: str) -> list[str]:
    """Return the services that have an image of this variant."""
    if variant == "cpu":
        return list(SERVICES)
    return [name for name in SERVICES if (ROOT / "locks" / f"{name}-gpu.txt").exists()]


def version() -> str:
    project = tomllib.loads((ROOT / "services/core/pyproject.toml").read_text())["project"]
    return str(project["version"])


def image_name(service: str, variant: str, prefix: str) -> str:
    return f"{prefix}/{service}:{version()}{'-gpu' if variant == 'gpu' else ''}"


def build(builder: str, service: str, variant: str, image: str, passed_on: list[str]) -> None:
    command = [builder, "build", "--file", DOCKERFILE, "--tag", image]
    if builder == "buildah":
        # OCI's own format has no HEALTHCHECK. Layers: the next service shares the first steps.
        command += ["--format", "docker", "--layers"]
    arguments = {
        "SERVICE": service,
        "VARIANT": variant,
        "VERSION": version(),
        "REVISION": revision(),
    }
    for name, value in arguments.items():
        command += ["--build-arg", f"{name}={value}"]
    if subprocess.run([*command, *passed_on, "."], cwd=ROOT).returncode:
        sys.exit(f"images: {image} was not built (above)")


def revision() -> str:
    command = ["git", "rev-parse", "HEAD"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def size_mib(builder: str, image: str) -> float:
    """Return the size of an image, unpacked, in MiB."""
    if builder == "docker":
        command = ["docker", "image", "inspect", "--format", "{{.Size}}", image]
    else:
        # buildah itself prints sizes for people only.
        command = ["buildah", "images", "--json", image]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return int(output) / 2**20 if builder == "docker" else parse_size(output)


def parse_size(listing: str) -> float:
    number, unit = json.loads(listing)[0]["size"].split()
    factors = {"B": 2**-20, "KB": 1e3 / 2**20, "MB": 1e6 / 2**20, "GB": 1e9 / 2**20}
    return float(number) * factors[unit]


if __name__ == "__main__":
    main()
