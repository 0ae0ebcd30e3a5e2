# SPDX-License-Identifier: GPL-3.0-or-later
"""Bias and scatter of every descriptor by digitisation, as the tables of docs/metrics.md.

python benchmarks/descriptor_bias.py [--copies 400] [--write]
"""

import argparse
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from other_tools import imagej, scikit_image
from true_shapes import SHAPES, Field, Rule, Shape, draw

from granulo_analyzer.domain.morphology import measure

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "metrics.md"
SIZES_PX = (10, 20, 60)
SEED = 20210223
ABSOLUTE = {"fractal_dimension"}
TOOLS: dict[str, Callable[[NDArray[np.bool_]], dict[str, float]]] = {
    "ImageJ": imagej,
    "scikit-image": scikit_image,
}
TOOL_ROWS = (
    "area", "perimeter", "max_feret", "min_feret", "ellipse_major", "ellipse_minor", "circularity",
    "solidity",
)  # fmt: skip

Errors = dict[str, NDArray[np.float64]]


def errors_of(shape: Shape, field: Field) -> Errors:
    """Errors of our descriptors: relative, or absolute where that makes more sense."""
    columns = measure(field.labels).columns
    found: Errors = {}
    for name, true in shape.true.items():
        values = columns.get(f"{name}_px", columns.get(name))
        assert values is not None
        found[name] = values - true if name in ABSOLUTE else values / true - 1
    place = np.stack((columns["centroid_x_px"], columns["centroid_y_px"]), axis=1)
    found["centroid"] = (place - field.centre)[:, 0]
    if shape.true["ellipse_major"] > 1.2 * shape.true["ellipse_minor"]:
        apart = columns["orientation_deg"] - field.angle_deg
        found["orientation"] = (apart + 90) % 180 - 90
    return found


def errors_of_tool(name: str, shape: Shape, field: Field) -> Errors:
    """The same of another tool's descriptors."""
    rows = [
        TOOLS[name](np.pad(field.labels == label, 1))
        for label in range(1, len(field.angle_deg) + 1)
    ]
    return {
        key: np.array([row[key] for row in rows]) / shape.true[key] - 1
        for key in TOOL_ROWS
        if key in rows[0]
    }


def table(title: str, cells: dict[str, dict[str, str]], columns: Iterable[str]) -> str:
    """Markdown."""
    names = list(columns)
    lines = [f"| {title} | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    lines += [
        f"| `{row}` | " + " | ".join(values.get(name, "") for name in names) + " |"
        for row, values in cells.items()
    ]
    return "\n".join(lines)


def cell(name: str, errors: NDArray[np.float64]) -> str:
    """Mean ± standard deviation."""
    if np.isnan(errors).all():
        return "–"
    mean, spread = float(np.nanmean(errors)), float(np.nanstd(errors))
    if name in ABSOLUTE or name == "centroid":
        return f"{mean:+.2f} ± {spread:.2f}".replace("-", "−")
    if name == "orientation":
        return f"{mean:+.1f}° ± {spread:.1f}°".replace("-", "−")
    return f"{100 * mean:+.1f} ± {100 * spread:.1f}".replace("-", "−")


def our_table(size: int, copies: int, rule: Rule, only: Iterable[str] = ()) -> str:
    rng = np.random.default_rng(SEED)
    cells: dict[str, dict[str, str]] = {}
    names = []
    for make in SHAPES:
        shape = make(size)
        names.append(shape.name)
        for name, errors in errors_of(shape, draw(shape, copies, rule, rng)).items():
            if not only or name in only:
                cells.setdefault(name, {})[shape.name] = cell(name, errors)
    return table(f"{size} px", cells, names)


def tool_table(size: int, copies: int) -> str:
    rng = np.random.default_rng(SEED)
    cells: dict[str, dict[str, str]] = {}
    columns = []
    for make in (SHAPES[0], SHAPES[3]):
        shape = make(size)
        field = draw(shape, copies, "centre", rng)
        found = {"Granulo": errors_of(shape, field)}
        found |= {tool: errors_of_tool(tool, shape, field) for tool in TOOLS}
        for tool, errors in found.items():
            columns.append(f"{shape.name}: {tool}")
            for name in TOOL_ROWS:
                if name in errors:
                    cells.setdefault(name, {})[columns[-1]] = cell(name, errors[name])
    return table(f"{size} px", cells, columns)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--copies", type=int, default=400)
    parser.add_argument("--write", action="store_true", help="into docs/metrics.md")
    options = parser.parse_args()
    ours = [our_table(size, options.copies, "centre") for size in SIZES_PX]
    main_rows = (
        "area",
        "ecd",
        "perimeter",
        "polygon_perimeter",
        "max_feret",
        "min_feret",
        "circularity",
    )
    coverage = our_table(20, options.copies // 4, "coverage", main_rows)
    tools = [tool_table(size, options.copies // 4) for size in (20, 60)]
    blocks = {"bias": "\n\n".join(ours), "coverage": coverage, "tools": "\n\n".join(tools)}
    if not options.write:
        for block in blocks.values():
            sys.stdout.write(block + "\n\n")
        return
    text = DOCUMENT.read_text()
    for name, block in blocks.items():
        pattern = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
        text, count = re.subn(
            pattern, lambda m, b=block: m[1] + b + "\n" + m[2], text, flags=re.DOTALL
        )
        if not count:
            raise SystemExit(f"{DOCUMENT.name} has no <!-- {name} --> to write between")
    DOCUMENT.write_text(text)


if __name__ == "__main__":
    main()
