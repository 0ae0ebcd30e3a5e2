# SPDX-License-Identifier: GPL-3.0-or-later
"""Generate the Python code and the descriptor set of the contract, and lint it.

    generate_protos.py            write the code beside the protos, and granulo/descriptor_set.binpb
    generate_protos.py --check    fail when the checked-in code is not what the protos generate
    generate_protos.py --lint     buf lint, format and breaking

The generator lives in an environment of its own (`.cache/protos-venv`, from `locks/protos.txt`),
because it is older than the runtime: code that it generates also runs beside TensorFlow. Google's
protos come from the wheel of googleapis-common-protos and are staged in a temporary folder, so that
none of them is in this repository.
"""

import argparse
import hashlib
import importlib
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
LOCK = ROOT / "locks" / "protos.txt"
ENVIRONMENT = ROOT / ".cache" / "protos-venv"
DESCRIPTOR_SET = Path("granulo") / "descriptor_set.binpb"
GENERATED = ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py", "*_pb2_grpc.pyi")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--check", action="store_true")
    mode.add_argument("--lint", action="store_true")
    arguments = parser.parse_args()
    if Path(sys.prefix) != ENVIRONMENT:
        return run_inside()
    with tempfile.TemporaryDirectory(prefix="granulo-protos-") as temporary:
        google = stage_google(Path(temporary) / "google-protos")
        if arguments.lint:
            return lint(google, Path(temporary))
        if arguments.check:
            return check(google, Path(temporary))
        generated = generate(PROTOS, google, PROTOS)
        remove_stale(generated)
        say(f"{len(generated)} files generated in {PROTOS.relative_to(ROOT)}/")
    return 0


def say(message: str) -> None:
    sys.stdout.write(f"{message}\n")
    sys.stdout.flush()


def run_inside() -> int:
    """Make the generator's environment when it is missing or old, then run this script in it."""
    digest = hashlib.sha256(LOCK.read_bytes()).hexdigest()
    stamp = ENVIRONMENT / "lock.sha256"
    python = ENVIRONMENT / "bin" / "python"
    if not stamp.exists() or stamp.read_text() != digest:
        say(f"Making {ENVIRONMENT.relative_to(ROOT)} from {LOCK.relative_to(ROOT)}")
        venv.create(ENVIRONMENT, clear=True, with_pip=True, symlinks=True)
        install = "-m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r"
        subprocess.run([python, *install.split(), LOCK], check=True)
        stamp.write_text(digest)
    environment = os.environ | {"PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run([python, __file__, *sys.argv[1:]], env=environment).returncode


def stage_google(target: Path) -> Path:
    """Copy the wheel's protos under the names that their generated modules register.

    The wheel ships `google/longrunning/operations.proto` as `operations_proto.proto`: what imports
    it by that name compiles, and then fails when it is loaded.
    """
    site = Path(importlib.import_module("google.longrunning").__path__[0]).parents[1]
    for source in sorted(site.glob("google/**/*.proto")):
        module = ".".join(source.relative_to(site).with_suffix("").parts) + "_pb2"
        staged = target / importlib.import_module(module).DESCRIPTOR.name
        staged.parent.mkdir(parents=True, exist_ok=True)
        staged.write_bytes(source.read_bytes())
    return target


def protoc(protos: Path, google: Path, *options: str) -> None:
    files = sorted(str(path.relative_to(protos)) for path in protos.glob("granulo/**/*.proto"))
    includes = [f"-I{protos}", f"-I{google}", f"-I{well_known()}"]
    compiler = [sys.executable, "-m", "grpc_tools.protoc"]
    subprocess.run([*compiler, *includes, *options, *files], check=True)


def well_known() -> Path:
    """Folder with google/protobuf/*.proto of the generator."""
    return Path(importlib.import_module("grpc_tools").__file__ or "").parent / "_proto"


def generate(protos: Path, google: Path, target: Path) -> list[Path]:
    """Write all generated files of `protos` below `target`; return their relative paths."""
    descriptor_set = target / DESCRIPTOR_SET
    descriptor_set.parent.mkdir(parents=True, exist_ok=True)
    outputs = [f"--{kind}_out={target}" for kind in ("python", "grpc_python")]
    outputs += [f"--{kind}_out=quiet:{target}" for kind in ("mypy", "mypy_grpc")]
    protoc(protos, google, *outputs, "--include_imports", f"--descriptor_set_out={descriptor_set}")
    return [DESCRIPTOR_SET, *generated_files(target)]


def generated_files(folder: Path) -> list[Path]:
    found = (path for pattern in GENERATED for path in folder.glob(f"granulo/**/{pattern}"))
    return sorted(path.relative_to(folder) for path in found)


def remove_stale(generated: list[Path]) -> None:
    """Remove generated code whose proto is gone."""
    for path in generated_files(PROTOS):
        stem = path.name.split("_pb2", maxsplit=1)[0]
        if not (PROTOS / path.parent / f"{stem}.proto").exists():
            (PROTOS / path).unlink()
            generated.remove(path)


def check(google: Path, temporary: Path) -> int:
    fresh = temporary / "fresh"
    fresh.mkdir()
    expected = set(generate(PROTOS, google, fresh))
    present = set(generated_files(PROTOS)) | {DESCRIPTOR_SET}
    differing = {
        path for path in expected & present if read(PROTOS / path) != (fresh / path).read_bytes()
    }
    differing |= expected ^ present
    for path in sorted(differing):
        say(f"protos/{path} is not what the protos generate; run: make protos")
    if not differing:
        say(f"Generated code is up to date ({len(expected)} files)")
    return 1 if differing else 0


def read(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


def lint(google: Path, temporary: Path) -> int:
    image = build_image(PROTOS, google, temporary / "now.binpb")
    config = f"--config={PROTOS / 'buf.yaml'}"
    failed = buf("lint", image, config, "--path=granulo")
    failed |= buf("format", PROTOS, "--diff", "--exit-code")
    baseline, reason = find_baseline()
    if baseline is None:
        say(f"buf breaking: skipped, {reason}")
        return int(failed)
    old = temporary / "old"
    old.mkdir()
    archive = old / "protos.tar"
    subprocess.run(["git", "archive", "-o", archive, baseline, "protos"], cwd=ROOT, check=True)
    subprocess.run(["tar", "-x", "-f", archive, "-C", old], check=True)
    against = build_image(old / "protos", google, temporary / "old.binpb")
    failed |= buf("breaking", image, config, "--path=granulo", f"--against={against}", note=reason)
    return int(failed)


def build_image(protos: Path, google: Path, target: Path) -> Path:
    """Compile to an image that buf reads: it then needs no Google module of its own."""
    output = f"--descriptor_set_out={target}"
    protoc(protos, google, "--include_imports", "--include_source_info", output)
    return target


def buf(command: str, source: Path, *options: str, note: str = "") -> bool:
    """Run one buf command; True when it found something."""
    result = subprocess.run(["buf", command, source, *options], cwd=PROTOS)
    say(f"buf {command}: {'failed' if result.returncode else 'ok'}{f' ({note})' if note else ''}")
    return result.returncode != 0


def find_baseline() -> tuple[str | None, str]:
    """Return the commit that the contract must stay compatible with and why it is that one."""
    tag = git("describe", "--tags", "--abbrev=0")
    if tag:
        return tag, f"against tag {tag}"
    # What is not committed yet is compared with the last commit, a clean tree with the one before.
    commit = "HEAD" if git("status", "--porcelain", "--", "protos") else "HEAD~1"
    if git("rev-parse", "--verify", "--quiet", commit) is None:
        return None, "no git history to compare with"
    if not git("ls-tree", "-r", "--name-only", commit, "protos"):
        return None, f"{commit} has no protos"
    return commit, f"against {commit}: there is no tag yet"


def git(*arguments: str) -> str | None:
    result = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    return result.stdout.strip() if result.returncode == 0 else None


if __name__ == "__main__":
    sys.exit(main())
