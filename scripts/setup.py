# SPDX-License-Identifier: GPL-3.0-or-later
"""Make `.venv/` in the checkout (`make setup`): system libraries, locked packages, distributions.

Nothing is done twice: a second run ends at once unless the lock or the metadata of a distribution
changed. Runs on a plain Python 3.11, before anything is installed.
"""

import ctypes
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / ".venv"
LOCK = ROOT / "requirements.lock"
STAMP = ENVIRONMENT / "granulo-setup.sha256"
SERVICES = ("core", "render", "trainer", "segmenter", "analyzer", "standalone")
DISTRIBUTIONS = ("protos", "client", *(f"services/{name}" for name in SERVICES))
# What Blender's module (bpy) links from the system, and the Debian package of each.
SYSTEM_LIBRARIES = {
    "libGL.so.1": "libgl1",
    "libICE.so.6": "libice6",
    "libSM.so.6": "libsm6",
    "libX11.so.6": "libx11-6",
    "libXext.so.6": "libxext6",
    "libXfixes.so.3": "libxfixes3",
    "libXi.so.6": "libxi6",
    "libXrender.so.1": "libxrender1",
    "libxkbcommon.so.0": "libxkbcommon0",
}


def main() -> int:
    check_python()
    check_system_libraries()
    digest = state_digest()
    if STAMP.exists() and STAMP.read_text() == digest:
        say("Set-up: .venv is up to date")
        return 0
    started = time.monotonic()
    python = ENVIRONMENT / "bin" / "python"
    if not is_usable(ENVIRONMENT):
        say("Set-up 1/3: making .venv")
        venv.create(ENVIRONMENT, clear=True, with_pip=True, symlinks=True)
    STAMP.unlink(missing_ok=True)
    packages = LOCK.read_text().count("==")
    say(f"Set-up 2/3: installing {packages} locked packages (3.5 GB; minutes on a slow line)")
    run_pip(python, "--no-deps", "--require-hashes", "--no-compile", "-r", str(LOCK))
    say(f"Set-up 3/3: installing Granulo's {len(DISTRIBUTIONS)} distributions from the checkout")
    editable = [argument for name in DISTRIBUTIONS for argument in ("--editable", str(ROOT / name))]
    run_pip(python, "--no-index", "--no-deps", "--no-build-isolation", *editable)
    STAMP.write_text(digest)
    say(f"Set-up: done in {time.monotonic() - started:.0f} s; the command is .venv/bin/granulo")
    return 0


def is_usable(environment: Path) -> bool:
    """Whether it is complete and was made in this place: its scripts hold absolute paths."""
    configuration = environment / "pyvenv.cfg"
    made_here = configuration.exists() and f" {environment}\n" in configuration.read_text()
    return made_here and (environment / "bin" / "pip").exists()


def say(message: str) -> None:
    sys.stdout.write(f"{message}\n")
    sys.stdout.flush()


def fail(message: str) -> None:
    sys.stderr.write(f"{message}\n")
    sys.exit(2)


def check_python() -> None:
    if sys.version_info[:2] != (3, 11):
        version = sys.version.split()[0]
        fail(
            f"Granulo needs Python 3.11, as Blender's module does; this is {version}. "
            "Run: make setup PYTHON=/path/to/python3.11"
        )


def check_system_libraries() -> None:
    """Install what is missing with apt where possible; otherwise print the line that does it."""
    missing = [package for name, package in SYSTEM_LIBRARIES.items() if not is_loadable(name)]
    if importlib.util.find_spec("ensurepip") is None:
        missing.append("python3-venv")
    if not missing:
        return
    line = f"apt-get install -y --no-install-recommends {' '.join(missing)}"
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        fail(f"Granulo needs system packages that are missing here. Run as root:\n  {line}")
    say(f"Set-up: {line}")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in ("apt-get update -q", line):
        arguments = command.split()
        if subprocess.run(arguments, env=environment, stdin=subprocess.DEVNULL).returncode:
            fail(f"{command} failed; Granulo cannot run without these packages")


def is_loadable(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def state_digest() -> str:
    """Return a digest of everything that decides what `.venv` holds."""
    digest = hashlib.sha256(str(ENVIRONMENT).encode())
    for path in (LOCK, *(ROOT / name / "pyproject.toml" for name in DISTRIBUTIONS)):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def run_pip(python: Path, *arguments: str) -> None:
    """Run pip and show how far it is; show all of its output when it fails."""
    command = [str(python), "-m", "pip", "install", "--disable-pip-version-check"]
    command += ["--progress-bar", "off", *arguments]
    with tempfile.NamedTemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        while process.poll() is None:
            try:
                process.wait(timeout=4)
            except subprocess.TimeoutExpired:
                say(f"  {describe_progress(Path(log.name).read_text())}")
        if process.returncode:
            sys.stderr.write(Path(log.name).read_text())
            fail("pip failed (above). The same command continues with what is already cached.")


def describe_progress(output: str) -> str:
    """Say in one line what pip has come to, from its output."""
    fetched = re.findall(r"^(?:Collecting|Processing) (?:\S*/)?(\S+)", output, re.MULTILINE)
    if "Installing collected packages" in output:
        unpacked = len(list(ENVIRONMENT.glob("lib/*/site-packages/*.dist-info")))
        return f"{unpacked} packages unpacked"
    return f"{len(fetched)} packages fetched, now {fetched[-1][:60]}" if fetched else "preparing"


if __name__ == "__main__":
    sys.exit(main())
