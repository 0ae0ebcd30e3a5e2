# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m granulo_core.gc``: list or remove what the store holds for nobody.

Exit codes: 0 done; 1 some objects could not be removed, or it ended early; 2 nothing was done.
"""

import argparse
import json
import re
import sys
from datetime import UTC, datetime

from granulo_core.errors import GranuloError
from granulo_core.gc.sweep import DAY_S, Collected, Rules, Tally, collect
from granulo_core.settings import CoreSettings
from granulo_core.store import open_store
from granulo_core.telemetry.logs import configure_logging

_YOUNGEST_S = 3600.0
_UNITS_S = {"h": 3600.0, "d": DAY_S, "w": 7 * DAY_S}


def main(arguments: list[str] | None = None) -> int:
    """Collect; the store is that of ``GRANULO_STORE_URL``."""
    parser = argparse.ArgumentParser(prog="python -m granulo_core.gc", description=__doc__)
    parser.add_argument("--delete", action="store_true", help="remove; otherwise it is listed only")
    parser.add_argument(
        "--older-than", type=seconds, default="7d", metavar="AGE",
        help="younger objects stay, whatever they are: 12h, 7d, 4w (7d)",
    )  # fmt: skip
    parser.add_argument(
        "--keep-operations", type=seconds, default=None, metavar="AGE",
        help="finished operations that are older go, too (none)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="one JSON document")
    options = parser.parse_args(arguments)
    if options.delete and options.older_than < _YOUNGEST_S:
        parser.error("--older-than must be 1h or more with --delete: what is made now is young")
    try:
        settings = CoreSettings.load()
        configure_logging(settings)
        rules = Rules(options.older_than, options.keep_operations)
        store = open_store(settings.store_url)
        found = collect(store, rules, delete=options.delete, tell=_tell)
    except GranuloError as error:
        sys.stderr.write(f"Nothing was collected: {error.message}\n")
        return 2
    text = (
        json.dumps(_document(found, options.delete), indent=1)
        if options.json
        else "\n".join(_lines(found, options.delete))
    )
    sys.stdout.write(f"{text}\n")
    return 1 if found.failed or found.stopped else 0


def seconds(text: str) -> float:
    """Read an age such as ``36h``, ``7d`` or ``4w``."""
    match = re.fullmatch(r"(\d+)([hdw])", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no age; give e.g. 36h, 7d or 4w")
    return float(match[1]) * _UNITS_S[match[2]]


def _tell(objects: int) -> None:
    sys.stderr.write(f"{objects} objects looked at\n")


def _document(found: Collected, deleted: bool) -> dict[str, object]:
    return {
        "deleted": deleted,
        "garbage": {kind.name.lower(): _values(tally) for kind, tally in found.garbage.items()},
        "kept": _values(found.kept),
        "unknown": {name: _values(tally) for name, tally in found.unknown.items()},
        "failed": found.failed,
        "stopped": found.stopped,
    }


def _values(tally: Tally) -> dict[str, object]:
    return {
        "objects": tally.objects,
        "size_bytes": tally.size_bytes,
        "oldest": _day(tally) or None,
    }


def _lines(found: Collected, deleted: bool) -> list[str]:
    rows = [(kind.value, tally) for kind, tally in found.garbage.items()]
    rows += [("kept", found.kept)]
    rows += [(f"unknown, left alone: {name}/", tally) for name, tally in found.unknown.items()]
    width = max(len(name) for name, _ in rows)
    lines = [f"{'':{width}}  {'objects':>10}  {'MB':>10}  oldest"]
    for name, tally in rows:
        size_mb = tally.size_bytes / 1e6
        lines.append(f"{name:{width}}  {tally.objects:10}  {size_mb:10.1f}  {_day(tally)}".rstrip())
    lines += [f"could not be removed: {key}: {why}" for key, why in found.failed.items()]
    if found.stopped:
        lines.append(f"Ended before all was looked at: {found.stopped}")
    if not found.garbage:
        lines.append("Nothing to remove.")
    elif not deleted:
        lines.append("Nothing was removed; --delete removes all but what is kept or unknown.")
    return lines


def _day(tally: Tally) -> str:
    return f"{datetime.fromtimestamp(tally.oldest_s, UTC):%Y-%m-%d}" if tally.objects else ""


if __name__ == "__main__":
    sys.exit(main())
