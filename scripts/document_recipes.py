#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write docs/recipe.schema.json and the tables of docs/recipes.md; --check only compares."""

import argparse
import sys
from pathlib import Path

from granulo_render.domain.recipe import APPEARANCE
from granulo_render.presets import presets
from granulo_render.recipe_schema import json_schema

DOCS = Path(__file__).resolve().parent.parent / "docs"
SCHEMA = DOCS / "recipe.schema.json"
PAGE = DOCS / "recipes.md"


def tables() -> dict[str, list[str]]:
    appearance = ["| name | range | meaning |", "|---|---|---|"]
    for name, (low, high, text) in APPEARANCE.items():
        appearance.append(f"| `{name}` | {low:g} to {high:g} | {text} |")
    shipped = ["| preset | material |", "|---|---|"]
    shipped += [f"| `{preset.id}` | {preset.description} |" for preset in presets().values()]
    return {"appearance": appearance, "presets": shipped}


def page(text: str) -> str:
    """Put the tables between their markers."""
    for name, rows in tables().items():
        begin = f"<!-- {name}: made by scripts/document_recipes.py -->\n"
        end = f"\n<!-- /{name} -->"
        head, marked, rest = text.partition(begin)
        _, closed, tail = rest.partition(end)
        if not marked or not closed:
            raise SystemExit(f"docs/recipes.md has no table marked {name}")
        text = head + begin + "\n".join(rows) + end + tail
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail on a difference")
    current = PAGE.read_text(encoding="utf-8")
    wanted = {SCHEMA: json_schema() + "\n", PAGE: page(current)}
    if not parser.parse_args().check:
        for path, text in wanted.items():
            path.write_text(text, encoding="utf-8")
        return 0
    stale = [
        path for path, text in wanted.items() if not path.is_file() or path.read_text() != text
    ]
    for path in stale:
        sys.stderr.write(f"docs/{path.name} is out of date: run scripts/document_recipes.py\n")
    return int(bool(stale))


if __name__ == "__main__":
    sys.exit(main())
