# SPDX-License-Identifier: GPL-3.0-or-later
"""One table of measured times (`make bench`); each part runs in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

PARTS = (
    "render", "training", "network", "data", "export", "segmentation", "serving", "morphology",
    "ensemble", "analysis",
)  # fmt: skip
FOLDER = Path(__file__).resolve().parent


def main() -> int:
    errors = Console(stderr=True)
    table = Table("what", "stage", "median s", "share", "of")
    failed = False
    for part in sys.argv[1:] or PARTS:
        errors.print(f"measuring {part} …")
        command = [sys.executable, str(FOLDER / f"part_{part}.py")]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        results = [
            json.loads(line.removeprefix("RESULT "))
            for line in done.stdout.splitlines()
            if line.startswith("RESULT ")
        ]
        if done.returncode or not results:
            errors.print(done.stderr[-2000:], markup=False)
            errors.print(f"{part} failed with code {done.returncode}")
            failed = True
        for result in results:
            add_rows(table, result)
    Console(width=120).print(table)
    return int(failed)


def add_rows(table: Table, result: dict[str, Any]) -> None:
    total = sum(result["stages"].values())
    for number, (stage, seconds) in enumerate(result["stages"].items()):
        title = result["title"] if number == 0 else ""
        table.add_row(title, stage, f"{seconds:.3f}", f"{seconds / total:.0%}", "")
    table.add_row("", f"all ({result['unit']})", f"{total:.3f}", "100%", result["note"])
    table.add_section()


if __name__ == "__main__":
    sys.exit(main())
