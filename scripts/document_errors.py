#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write docs/errors.md from the table of reasons in granulo_core.errors; --check only compares."""

import argparse
import sys
from pathlib import Path

from granulo_core.errors import DOMAIN, REASONS

PAGE = Path(__file__).resolve().parent.parent / "docs" / "errors.md"

HEAD = f"""\
# Errors

<!-- Made by scripts/document_errors.py from granulo_core/errors.py: change that table. -->

Every failed call ends with a canonical gRPC code, a sentence that says what was wrong, where, and
what to do, and a `google.rpc.ErrorInfo` whose `domain` is `{DOMAIN}` and whose `reason` is one of
those below. Programs decide by the reason, people by the sentence; sentences may change.

Further details: `BadRequest` names every unusable field (INVALID_ARGUMENT), `RetryInfo` says when
to try again (RESOURCE_EXHAUSTED, UNAVAILABLE), `PreconditionFailure` names the state in the way
(FAILED_PRECONDITION). A failed operation carries the same details in `Operation.error`.

| reason | code | meaning |
|---|---|---|
"""


def page() -> str:
    rows = [
        f"| `{reason}` | {code.name} | {meaning} |"
        for reason, (code, meaning) in sorted(
            REASONS.items(), key=lambda item: (item[1][0].name, item[0])
        )
    ]
    return HEAD + "\n".join(rows) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail on a difference")
    if not parser.parse_args().check:
        PAGE.write_text(page(), encoding="utf-8")
        return 0
    if not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != page():
        sys.stderr.write("docs/errors.md is out of date: run python scripts/document_errors.py\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
