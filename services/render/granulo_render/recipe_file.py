# SPDX-License-Identifier: GPL-3.0-or-later
"""Recipes as YAML or JSON text and as mappings in the JSON form of ``granulo.render.v1.Recipe``.

The models that check a document follow from the dataclasses of `granulo_render.domain.recipe`. A
bare number stands for a fixed value, e.g. ``sharpness: 6`` for ``sharpness: {value: 6}``, and an
enum's value for its full name, e.g. ``cube`` for ``FAMILY_CUBE``.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from functools import cache
from typing import Annotated, Any, Literal, Self, get_args, get_type_hints

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    ValidationError,
    create_model,
    model_validator,
)

from granulo_core.errors import FieldViolation, invalid_fields
from granulo_render.domain import recipe as domain
from granulo_render.domain.recipe import Distribution, Recipe
from granulo_render.domain.recipe_check import problems

Path = tuple[str | int, ...]

_ZERO_MEANS_DEFAULT = frozenset({"version", "size_px", "templates", "weight"})
"""Numbers of which the contract says that 0 is the default, as everywhere in protobuf."""


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


class _Empirical(_Block):
    samples: tuple[float, ...] = ()


class _Component(_Block):
    weight: float = 0.0
    distribution: "_Law"


class _Mixture(_Block):
    components: tuple[_Component, ...] = ()


class _Law(_OneOf):
    """A number: a value or a distribution."""

    value: float | None = None
    uniform: _Uniform | None = None
    normal: _Normal | None = None
    log_normal: _LogNormal | None = None
    choice: _Choice | None = None
    empirical: _Empirical | None = None
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
        if self.empirical:
            return domain.Empirical(self.empirical.samples)
        if self.mixture:
            parts = self.mixture.components
            return domain.Mixture(
                tuple(domain.Component(part.weight, part.distribution.law()) for part in parts)
            )
        return domain.Value(self.value or 0.0)


class _OneShape(_OneOf):
    """A block of which exactly one shape must be given."""

    @classmethod
    def group(cls) -> tuple[str, ...]:
        return tuple(domain.SHAPES)


class _FirstRelease(_Block):
    """An arrangement as it was before there were patterns."""

    @model_validator(mode="before")
    @classmethod
    def _row_share(cls, given: Any) -> Any:
        """Read the first release's ``row_share`` as the patterns that it stood for."""
        if not isinstance(given, Mapping) or "row_share" not in given or "patterns" in given:
            return given
        share = given["row_share"]
        if not isinstance(share, int | float) or not 0 <= share <= 1:
            raise ValueError(f"has row_share {share!r}; give patterns instead")
        rest = {name: value for name, value in given.items() if name != "row_share"}
        return {**rest, "patterns": {"agglomerates": 1 - share, "rafts": share}}


_BASES: Mapping[type, type[_Block]] = {
    domain.ParticleClass: _OneShape,
    domain.Arrangement: _FirstRelease,
}


@cache
def document_model(kind: Any) -> type[_Block]:
    """Model of the documents of a domain class; None stands for what a document leaves out."""
    hints = get_type_hints(kind)
    parts: dict[str, Any] = {}
    for item in fields(kind):
        if item.name == "shape":
            shapes: Mapping[str, Any] = domain.SHAPES
            parts |= {name: (document_model(shape) | None, None) for name, shape in shapes.items()}
        else:
            required = item.default is MISSING and item.default_factory is MISSING
            document = _document(hints[item.name])
            parts[item.name] = (document, ...) if required else (document | None, None)
    return create_model(kind.__name__, __base__=_BASES.get(kind, _Block), **parts)


def _document(hint: Any) -> Any:
    """Type in a document of what has the type ``hint`` in the domain."""
    if hint == Mapping[str, Distribution]:
        return dict[str, _Law]
    options = [option for option in get_args(hint) or [hint] if option is not type(None)]
    if set(options) == set(get_args(Distribution)):
        return _Law
    option: Any = next(item for item in options if item is not Ellipsis)
    if issubclass(option, Enum):
        found: Any = _names(option)
    else:
        found = document_model(option) if hasattr(option, "__dataclass_fields__") else option
    return tuple[found, ...] if Ellipsis in options else found


def _names(kind: type[Enum]) -> Any:
    """Names of an enum: its values, or the contract's full names (``FAMILY_CUBE``)."""
    prefix = f"{_snake(kind)}_".upper()

    def short(given: Any) -> Any:
        name = given.removeprefix(prefix).lower() if isinstance(given, str) else given
        return values[0] if name == "unspecified" else name

    values = tuple(item.value for item in kind)
    return Annotated[Literal[values], BeforeValidator(short)]


def _read(kind: type, block: BaseModel) -> Any:
    """Make the domain object of a checked block; what it leaves out keeps the domain's default."""
    given: dict[str, Any] = {}
    hints = get_type_hints(kind)
    for name in block.model_fields_set:
        value = getattr(block, name)
        if value is None or (value == 0 and name in _ZERO_MEANS_DEFAULT):
            continue
        if kind is domain.ParticleClass and name in domain.SHAPES:
            given["shape"] = _read(domain.SHAPES[name], value)
        else:
            given[name] = _value(hints[name], value)
    return kind(**given)


def _value(hint: Any, value: Any) -> Any:
    if isinstance(value, _Law):
        return value.law()
    if isinstance(value, dict):
        return {name: law.law() for name, law in value.items()}
    options = [option for option in get_args(hint) or [hint] if isinstance(option, type)]
    kind = options[0]
    if isinstance(value, tuple):
        return tuple(_value(kind, item) for item in value)
    if isinstance(value, BaseModel):
        return _read(kind, value)
    return kind(value) if issubclass(kind, Enum) else value


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
    """Write a recipe as a mapping from which `from_mapping` makes an equal one.

    It is the JSON form of ``granulo.render.v1.Recipe``, with every default written out.
    """
    mapping: dict[str, Any] = _written(recipe)
    mapping["appearance"] = dict(sorted(mapping["appearance"].items()))
    return mapping


def _written(value: Any) -> Any:
    match value:
        case domain.Value(number):
            return {"value": number}
        case domain.Mixture(components):
            return {"mixture": {"components": [_written(part) for part in components]}}
        case (
            domain.Uniform()
            | domain.Normal()
            | domain.LogNormal()
            | domain.Choice()
            | domain.Empirical()
        ):
            return {_snake(type(value)): {k: _written(v) for k, v in vars(value).items()}}
        case domain.Modality.ANY:
            return "MODALITY_UNSPECIFIED"
        case Enum():
            return f"{_snake(type(value))}_{value.value}".upper()
        case domain.ParticleClass():
            rest = {k: v for k, v in vars(value).items() if k != "shape" and v is not None}
            shape = {domain.shape_name(value.shape): _written(value.shape)}
            return shape | {name: _written(item) for name, item in rest.items()}
        case tuple():
            return [_written(item) for item in value]
        case Mapping():
            return {name: _written(item) for name, item in value.items()}
        case _ if is_dataclass(value):
            return {k: _written(v) for k, v in vars(value).items() if v is not None}
        case _:
            return value


def _snake(kind: type) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()


def _checked(content: Any, place: Callable[[Path], str]) -> Recipe:
    if not isinstance(content, Mapping):
        raise invalid_fields([FieldViolation(f"{place(())}recipe", "is no mapping of fields")])
    try:
        recipe: Recipe = _read(Recipe, document_model(Recipe).model_validate(content))
    except ValidationError as error:
        raise invalid_fields(
            [
                FieldViolation(place(item["loc"]) + _dotted(item["loc"]), _sentence(item["msg"]))
                for item in error.errors(include_url=False)
            ]
        ) from error
    found = problems(recipe)
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
