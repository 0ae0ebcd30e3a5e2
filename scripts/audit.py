# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare requirements.lock with the database of known vulnerabilities (osv.dev, by pip-audit).

Ends with 1 where a locked package has a known vulnerability. Where the database cannot be asked it
says so and ends with 0, because work without a network must go on; with CI_AUDIT=1 it ends with 2
instead.
"""

import json
import os
import subprocess
import sys
import sysconfig
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
DATABASE = "https://api.osv.dev/"
_LOOK_S = 10
_TIMEOUT_S = 600
FOUND, UNREACHABLE = 1, 2


def main() -> int:
    """Ask the database, where it is there, and tell what it says."""
    try:
        with urllib.request.urlopen(DATABASE, timeout=_LOOK_S):
            pass
    except urllib.error.HTTPError:
        pass  # it has no page there, but it answers
    except OSError as error:
        return unreachable(str(error))
    program = Path(sysconfig.get_path("scripts")) / "pip-audit"
    command = [
        str(program),
        "--requirement",
        str(LOCK),
        "--no-deps",
        "--disable-pip",
        "--require-hashes",
    ]
    # Not the package index's own: mirrors rarely have it, and answer "unknown" for every package.
    command += ["--vulnerability-service", "osv", "--format", "json", "--progress-spinner", "off"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return unreachable(f"no answer within {_TIMEOUT_S} s")
    try:
        return report(json.loads(done.stdout)["dependencies"])
    except (ValueError, KeyError):
        return unreachable((done.stderr.strip().splitlines() or ["pip-audit says nothing"])[-1])


def report(packages: list[dict[str, Any]]) -> int:
    """Tell pip-audit's findings; the exit code."""
    checked = [package for package in packages if "skip_reason" not in package]
    if not checked:
        return unreachable("it knows none of the packages")
    faults = [(package, fault) for package in checked for fault in package["vulns"]]
    for package, fault in faults:
        fixed = ", ".join(fault["fix_versions"]) or "no version yet"
        tell(f"{package['name']} {package['version']}: {fault['id']}, fixed in {fixed}")
    if unknown := [package["name"] for package in packages if "skip_reason" in package]:
        tell(f"Not in the database: {', '.join(unknown)}")
    tell(f"Audit: {len(faults)} known vulnerabilities in {len(checked)} packages")
    return FOUND if faults else 0


def unreachable(cause: str) -> int:
    """Tell that nothing was compared; the exit code."""
    tell(f"Audit: SKIPPED, the vulnerability database cannot be asked ({cause[:200]})")
    return UNREACHABLE if os.environ.get("CI_AUDIT") == "1" else 0


def tell(text: str) -> None:
    """Write a line."""
    sys.stdout.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main())
