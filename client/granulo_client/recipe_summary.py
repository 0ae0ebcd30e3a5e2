# SPDX-License-Identifier: Apache-2.0
"""What a recipe amounts to: sizes, numbers, and what differs from scene to scene."""

import math
from collections.abc import Iterator
from typing import Any

from google.protobuf.message import Message

from granulo.render.v1.recipe_pb2 import Distribution, Imaging, Modality, Recipe
from granulo_client.recipes import enum_name

Range = tuple[float, float]

_NM2_PER_UM2 = 1e6
_DEFAULT_DENSITY = Distribution(value=20)  # as recipe.proto says
_DEFAULT_SIZE_PX = 512


def summary_document(recipe: Recipe) -> dict[str, Any]:
    """A checked recipe's ranges as plain values.

    Parameters
    ----------
    recipe : Recipe
        With its defaults written out, as `Client.check_recipe` gives it.
    """
    size_px = recipe.imaging.size_px or _DEFAULT_SIZE_PX
    pixel_nm = _pixel_size_nm(recipe.imaging, size_px)
    field_nm = (pixel_nm[0] * size_px, pixel_nm[1] * size_px)
    weights = [item.weight or 1.0 for item in recipe.classes]
    classes = []
    for item, weight in zip(recipe.classes, weights, strict=True):
        low_nm, high_nm = support(item.diameter_nm)
        classes.append(
            {
                "label": item.label,
                "shape": item.WhichOneof("shape"),
                "share": weight / sum(weights),
                "diameter_nm": (low_nm, high_nm),
                "diameter_px": (low_nm / pixel_nm[1], high_nm / pixel_nm[0]),
            }
        )
    return {
        "label": recipe.label,
        "modality": enum_name(Modality.DESCRIPTOR, recipe.modality),
        "size_px": size_px,
        "pixel_size_nm": pixel_nm,
        "field_of_view_nm": field_nm,
        **_amount(recipe, field_nm),
        "classes": classes,
        "random": list(_random(recipe, "")),
    }


def summary_lines(summary: dict[str, Any]) -> list[str]:
    """A summary for people."""
    size_px = summary["size_px"]
    pixel_nm, field_nm = _range(summary["pixel_size_nm"]), _range(summary["field_of_view_nm"])
    lines = [f"image: {size_px} x {size_px} px of {pixel_nm} nm, field of view {field_nm} nm"]
    if "coverage" in summary:
        lines.append(f"particles: {_range(summary['coverage'], 100)} % of the field of view")
    else:
        low, high = (round(end) for end in summary["count"])
        lines.append(f"particles: about {_range((low, high))} a scene")
    for number, item in enumerate(summary["classes"]):
        lines.append(
            f"  {item['label'] or f'class {number}'}: {item['share']:.0%}, {item['shape']}, "
            f"diameter {_range(item['diameter_nm'])} nm ({_range(item['diameter_px'])} px)"
        )
    lines.append(f"look: modality {summary['modality']}")
    groups: dict[str, list[str]] = {}
    for path in summary["random"]:
        group, _, name = path.partition(".")
        groups.setdefault(group, []).append(name)
    lines += [f"random in {group}: {', '.join(names)}" for group, names in groups.items()]
    return lines


def support(law: Distribution) -> Range:
    """Smallest and largest number that a distribution can give.

    Bell curves are cut off at three standard deviations, as docs/recipes.md says.
    """
    match law.WhichOneof("kind"):
        case "uniform":
            return law.uniform.low, law.uniform.high
        case "normal":
            reach = 3 * law.normal.stddev
            return law.normal.mean - reach, law.normal.mean + reach
        case "log_normal":
            factor = math.exp(3 * law.log_normal.sigma)
            return law.log_normal.median / factor, law.log_normal.median * factor
        case "choice":
            return min(law.choice.values), max(law.choice.values)
        case "empirical":
            return min(law.empirical.samples), max(law.empirical.samples)
        case "mixture":
            ends = [support(part.distribution) for part in law.mixture.components]
            return min(low for low, _ in ends), max(high for _, high in ends)
        case _:
            return law.value, law.value


def _pixel_size_nm(imaging: Imaging, size_px: int) -> Range:
    if imaging.HasField("field_of_view_nm"):
        low_nm, high_nm = support(imaging.field_of_view_nm)
        return low_nm / size_px, high_nm / size_px
    return support(imaging.pixel_size_nm)


def _amount(recipe: Recipe, field_nm: Range) -> dict[str, Range]:
    arrangement = recipe.arrangement
    if arrangement.HasField("coverage"):
        return {"coverage": support(arrangement.coverage)}
    if arrangement.HasField("count"):
        return {"count": support(arrangement.count)}
    given = arrangement.HasField("density_per_um2")
    low, high = support(arrangement.density_per_um2 if given else _DEFAULT_DENSITY)
    return {
        "count": (low * field_nm[0] ** 2 / _NM2_PER_UM2, high * field_nm[1] ** 2 / _NM2_PER_UM2)
    }


def _random(message: Message, path: str) -> Iterator[str]:
    """Paths of the numbers that differ from draw to draw."""
    for field, value in message.ListFields():
        here = f"{path}.{field.name}".removeprefix(".")
        if field.message_type is None:
            continue
        if field.message_type.GetOptions().map_entry:
            items = [(f"{here}.{name}", value[name]) for name in sorted(value)]
        elif field.is_repeated:
            items = [(f"{here}[{i}]", item) for i, item in enumerate(value)]
        else:
            items = [(here, value)]
        for name, item in items:
            if not isinstance(item, Distribution):
                yield from _random(item, name)
            elif len(set(support(item))) > 1:
                yield name


def _range(ends: Range, factor: float = 1) -> str:
    low, high = (_short(end * factor) for end in ends)
    return low if low == high else f"{low} to {high}"


def _short(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
