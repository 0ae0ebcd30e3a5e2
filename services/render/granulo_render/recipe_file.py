# SPDX-License-Identifier: GPL-3.0-or-later
"""Recipes as YAML or JSON text and as mappings in the JSON form of ``granulo.render.v1.Recipe``.

A bare number stands for a fixed value, e.g. ``sharpness: 6`` for ``sharpness: {value: 6}``.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from granulo_core.errors import FieldViolation, invalid_fields
from granulo_render.domain import recipe as domain
from granulo_render.domain.recipe import Distribution, ParticleClass, Recipe, Shape

Path = tuple[str | int, ...]


class _Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _OneOf(_Block):
    """A block of which exactly one key of a group must be given."""

    @classmethod
    def group(cls) -> tuple[str, ...]:
        return tuple(cls.model_fields)

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = [name for name in self.group() if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(self.group())}")
        return self


class _Uniform(_Block):
    low: float = 0.0
    high: float = 0.0


class _Normal(_Block):
    mean: float = 0.0
    stddev: float = 0.0


class _LogNormal(_Block):
    median: float = 0.0
    sigma: float = 0.0


class _Choice(_Block):
    values: tuple[float, ...] = ()


class _Component(_Block):
    weight: float = 0.0
    distribution: "_Law"


class _Mixture(_Block):
    components: tuple[_Component, ...] = ()


class _Law(_OneOf):
    value: float | None = None
    uniform: _Uniform | None = None
    normal: _Normal | None = None
    log_normal: _LogNormal | None = None
    choice: _Choice | None = None
    mixture: _Mixture | None = None

    @model_validator(mode="before")
    @classmethod
    def _bare_number(cls, given: Any) -> Any:
        return given if isinstance(given, Mapping | _Law) else {"value": given}

    def law(self) -> Distribution:
        if self.uniform:
            return domain.Uniform(self.uniform.low, self.uniform.high)
        if self.normal:
            return domain.Normal(self.normal.mean, self.normal.stddev)
        if self.log_normal:
            return domain.LogNormal(self.log_normal.median, self.log_normal.sigma)
        if self.choice:
            return domain.Choice(self.choice.values)
        if self.mixture:
            parts = self.mixture.components
            return domain.Mixture(
                tuple(domain.Component(part.weight, part.distribution.law()) for part in parts)
            )
        return domain.Value(self.value or 0.0)


class _Sphere(_Block):
    roughness: _Law | None = None


class _Ellipsoid(_Block):
    aspect_ratio: _Law | None = None


class _Polyhedron(_Block):
    templates: int = 0
    faces: _Law | None = None
    sharpness: _Law | None = None
    aspect_ratio: _Law | None = None
    roughness: _Law | None = None


class _Class(_OneOf):
    sphere: _Sphere | None = None
    ellipsoid: _Ellipsoid | None = None
    polyhedron: _Polyhedron | None = None
    diameter_nm: _Law
    weight: float = 0.0
    label: str = ""

    @classmethod
    def group(cls) -> tuple[str, ...]:
        return "sphere", "ellipsoid", "polyhedron"

    def shape(self) -> Shape:
        if self.sphere:
            return domain.Sphere(**_laws(self.sphere))
        if self.ellipsoid:
            return domain.Ellipsoid(**_laws(self.ellipsoid))
        if self.polyhedron:
            solid = domain.Polyhedron(**_laws(self.polyhedron))
            return replace(solid, templates=self.polyhedron.templates or solid.templates)
        raise AssertionError("the group's check lets no class without a shape pass")


class _Arrangement(_Block):
    density_per_um2: _Law | None = None
    cluster_size: _Law | None = None
    stacking: _Law | None = None
    row_share: float = 0.0


class _Imaging(_Block):
    pixel_size_nm: _Law
    size_px: int = 0
    upsampling: _Law | None = None


class _Recipe(_Block):
    version: int = 0
    label: str = Field(default="", max_length=200)
    classes: tuple[_Class, ...]
    arrangement: _Arrangement = _Arrangement()
    imaging: _Imaging
    appearance: dict[str, _Law] = {}

    def recipe(self) -> Recipe:
        imaging = domain.Imaging(**_laws(self.imaging))
        return Recipe(
            version=self.version or 1,
            label=self.label,
            classes=tuple(
                ParticleClass(kind.shape(), kind.diameter_nm.law(), kind.weight or 1.0, kind.label)
                for kind in self.classes
            ),
            arrangement=domain.Arrangement(
                row_share=self.arrangement.row_share, **_laws(self.arrangement)
            ),
            imaging=replace(imaging, size_px=self.imaging.size_px or imaging.size_px),
            appearance={name: law.law() for name, law in self.appearance.items()},
        )


def _laws(block: _Block) -> dict[str, Any]:
    """Keyword arguments for the distributions that a block gives; the others keep defaults."""
    given = {name: getattr(block, name) for name in type(block).model_fields}
    return {name: value.law() for name, value in given.items() if isinstance(value, _Law)}


def load_recipe(text: str, source: str) -> Recipe:
    """Read a recipe from YAML or JSON text.

    Parameters
    ----------
    text : str
        The document.
    source : str
        Its name for error messages, e.g. the file's.

    Raises
    ------
    GranuloError
        FIELD_INVALID naming every offending field with its path and line.
    """
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise invalid_fields([FieldViolation(source, f"is no YAML: {error}")]) from error
    lines: dict[Path, int] = {}
    if node is not None:
        _lines(node, (), lines)
    return _checked(content, lambda path: f"{source}:{_line(path, lines)}: ")


def from_mapping(content: Mapping[str, Any], prefix: str = "") -> Recipe:
    """Read a recipe from a mapping; ``prefix`` precedes the paths in errors.

    Raises
    ------
    GranuloError
        FIELD_INVALID naming every offending field.
    """
    return _checked(content, lambda _path: prefix)


def to_mapping(recipe: Recipe) -> dict[str, Any]:
    """Write a recipe as a mapping from which `from_mapping` makes an equal one."""
    kinds = []
    for kind in recipe.classes:
        shape = {name: _value_of(value) for name, value in vars(kind.shape).items()}
        kinds.append(
            {
                "label": kind.label,
                _snake(kind.shape): shape,
                "diameter_nm": _value_of(kind.diameter_nm),
                "weight": kind.weight,
            }
        )
    return {
        "version": recipe.version,
        "label": recipe.label,
        "classes": kinds,
        "arrangement": {k: _value_of(v) for k, v in vars(recipe.arrangement).items()},
        "imaging": {k: _value_of(v) for k, v in vars(recipe.imaging).items()},
        "appearance": {k: _value_of(v) for k, v in sorted(recipe.appearance.items())},
    }


def _value_of(value: Any) -> Any:
    match value:
        case domain.Value(number):
            return {"value": number}
        case domain.Choice(values):
            return {"choice": {"values": list(values)}}
        case domain.Mixture(components):
            parts = [
                {"weight": part.weight, "distribution": _value_of(part.distribution)}
                for part in components
            ]
            return {"mixture": {"components": parts}}
        case domain.Uniform() | domain.Normal() | domain.LogNormal():
            return {_snake(value): dict(vars(value))}
        case _:
            return value


def _snake(thing: object) -> str:
    return "log_normal" if isinstance(thing, domain.LogNormal) else type(thing).__name__.lower()


def _checked(content: Any, place: Callable[[Path], str]) -> Recipe:
    if not isinstance(content, Mapping):
        raise invalid_fields([FieldViolation(f"{place(())}recipe", "is no mapping of fields")])
    try:
        recipe = _Recipe.model_validate(content).recipe()
    except ValidationError as error:
        raise invalid_fields(
            [
                FieldViolation(place(item["loc"]) + _dotted(item["loc"]), _sentence(item["msg"]))
                for item in error.errors(include_url=False)
            ]
        ) from error
    found = domain.problems(recipe)
    if found:
        raise invalid_fields(
            [FieldViolation(place(_parsed(path)) + path, text) for path, text in found]
        )
    return recipe


def _sentence(message: str) -> str:
    return message.removeprefix("Value error, ").replace(
        "Extra inputs are not permitted", "is no known field; see docs/recipes.md"
    )


def _dotted(path: Path) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".") or "recipe"


def _parsed(path: str) -> Path:
    parts = path.replace("[", ".").replace("]", "").split(".")
    return tuple(int(part) if part.isdigit() else part for part in parts)


def _lines(node: yaml.Node, path: Path, lines: dict[Path, int]) -> None:
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            lines[(*path, key.value)] = key.start_mark.line + 1
            _lines(value, (*path, key.value), lines)
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            _lines(value, (*path, i), lines)


def _line(path: Path, lines: dict[Path, int]) -> int:
    """Line of the deepest part of a path that the document has."""
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 1)
