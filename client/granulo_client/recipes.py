# SPDX-License-Identifier: Apache-2.0
"""Recipe files: the fields of ``granulo.render.v1.Recipe`` in YAML or JSON.

A bare number stands for a fixed value: ``faces: 6`` is ``faces: {value: 6}``. An enum's value is
its name in lower case: ``modality: sem_in_lens`` is ``modality: MODALITY_SEM_IN_LENS``.
"""

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

from granulo.render.v1 import recipe_pb2
from granulo_client.errors import FieldViolation, InvalidArgumentError, UsageError
from granulo_client.meshes import resolve_meshes
from granulo_client.yamlfile import Location, YamlFile, dotted, load_yaml

_ENDINGS = (".yaml", ".yml", ".json")
_INTEGERS = frozenset({FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64})
# JSON writes 1e-05 and YAML 1.1 reads it as text.
_EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")
_STEP = re.compile(r"\.?([^.\[\]]+)|\[(\d+)\]")


@dataclass(frozen=True)
class RecipeSource:
    """What to render: a preset's name, or a recipe and the file that it was read from."""

    recipe: str | recipe_pb2.Recipe
    file: YamlFile | None = None

    @contextmanager
    def located(self) -> Iterator[None]:
        """Tell the lines of what a server finds wrong with the recipe within a ``with`` block."""
        try:
            yield
        except InvalidArgumentError as error:
            file = self.file
            if file is None or not error.violations:
                raise
            told = [_located(violation, file) for violation in error.violations]
            raise UsageError(
                "\n".join(told), reason=error.reason, violations=error.violations
            ) from error


def is_recipe_file(text: str) -> bool:
    """Whether a text names a recipe file, rather than a preset."""
    return text.lower().endswith(_ENDINGS) or "/" in text


def recipe_source(text: str, base: Path | None = None) -> RecipeSource:
    """A preset's name, or the recipe in the file that the text names.

    Parameters
    ----------
    text : str
        What ends like a YAML or JSON file, or holds a slash, is a file.
    base : Path, optional
        Folder against which relative paths are read; the working directory by default.

    Raises
    ------
    UsageError
        As `load_recipe`.
    """
    if is_recipe_file(text):
        file = load_yaml(base / text if base else Path(text))
        return RecipeSource(_read(file), file)
    return RecipeSource(text)


def load_recipe(path: Path | str) -> recipe_pb2.Recipe:
    """Read a recipe file.

    Structure is checked here, with line numbers; ranges are checked by the renderer. Files of
    meshes get absolute paths; whatever sends the recipe to a server uploads them.

    Raises
    ------
    UsageError
        Names every key and value that does not belong, each with its line.
    """
    return _read(load_yaml(Path(path)))


def enum_name(enum: EnumDescriptor, number: int) -> str:
    """Name of an enum's value in recipe files, e.g. ``sem_in_lens``."""
    name: str = enum.values_by_number[number].name
    # The renderer's word for the look that no microscope narrows down.
    return "any" if name == "MODALITY_UNSPECIFIED" else name.removeprefix(_prefix(enum)).lower()


def _read(file: YamlFile) -> recipe_pb2.Recipe:
    recipe = recipe_pb2.Recipe()
    problems: list[tuple[Location, str]] = []
    _fill(recipe, file.content, (), problems)
    problems += resolve_meshes(recipe, Path(file.source).parent)
    if problems:
        raise UsageError(
            "\n".join(file.problem(location, text) for location, text in problems),
            reason="FIELD_INVALID",
            violations=[FieldViolation(dotted(location), text) for location, text in problems],
        )
    return recipe


def _located(violation: FieldViolation, file: YamlFile) -> str:
    """A violation with its line, where its path leads into the recipe."""
    before, found, path = violation.field.rpartition("recipe.")
    if not found or before not in ("", "dataset."):
        return f"{violation.field}: {violation.description}"
    location = tuple(int(n) if n else key for key, n in _STEP.findall(path))
    return file.problem(location, violation.description)


def _fill(
    message: Message, content: Any, at: Location, problems: list[tuple[Location, str]]
) -> None:
    if isinstance(message, recipe_pb2.Distribution) and not isinstance(content, dict):
        value = _scalar(message.DESCRIPTOR.fields_by_name["value"], content, at, problems)
        if value is not None:
            message.value = float(value)
        return
    if not isinstance(content, dict):
        problems.append((at, f"must be a mapping of {_known(message)}"))
        return
    chosen: dict[str, str] = {}
    for key, value in content.items():
        field = cast("FieldDescriptor | None", message.DESCRIPTOR.fields_by_name.get(str(key)))
        here = (*at, str(key))
        if field is None:
            problems.append((here, f"is no known key; known are {_known(message)}"))
            continue
        group = field.containing_oneof.name if field.containing_oneof else str(key)
        if group in chosen:
            problems.append((here, f"goes not together with {chosen[group]}; keep one"))
            continue
        chosen[group] = str(key)
        _set(message, field, value, here, problems)


def _set(
    message: Message,
    field: FieldDescriptor,
    value: Any,
    at: Location,
    problems: list[tuple[Location, str]],
) -> None:
    is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
    if is_map:
        if not isinstance(value, dict):
            problems.append((at, "must be a mapping of names to numbers or distributions"))
            return
        for key, item in value.items():
            name = _text(key, (*at, str(key)), problems)
            if name is not None:
                _fill(getattr(message, field.name)[name], item, (*at, name), problems)
    elif field.is_repeated:
        if not isinstance(value, list):
            problems.append((at, "must be a list"))
            return
        target = getattr(message, field.name)
        for i, item in enumerate(value):
            if field.message_type is not None:
                _fill(target.add(), item, (*at, i), problems)
            elif (scalar := _scalar(field, item, (*at, i), problems)) is not None:
                target.append(scalar)
    elif field.message_type is not None:
        target = getattr(message, field.name)
        target.SetInParent()
        # `sphere:` alone means a sphere with defaults.
        _fill(target, {} if value is None else value, at, problems)
    elif (scalar := _scalar(field, value, at, problems)) is not None:
        setattr(message, field.name, scalar)


def _scalar(
    field: FieldDescriptor, value: Any, at: Location, problems: list[tuple[Location, str]]
) -> float | int | str | None:
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return _text(value, at, problems)
    if field.enum_type is not None:
        return _enum(field.enum_type, value, at, problems)
    if isinstance(value, str) and _EXPONENT.fullmatch(value):
        value = float(value)
    if not _is_number(value) or not math.isfinite(value):
        problems.append((at, f"is {value!r}; give a finite number"))
        return None
    if field.cpp_type not in _INTEGERS:
        return float(value)
    if value != int(value) or not -(2**31) <= value < 2**31:
        problems.append((at, f"is {value!r}; give a whole number"))
        return None
    return int(value)


def _text(value: Any, at: Location, problems: list[tuple[Location, str]]) -> str | None:
    text = str(value)
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a character, e.g. "\\ud800" in JSON
        problems.append((at, f"is {text!r}, which is no text; write it again"))
        return None
    return text


def _enum(
    enum: EnumDescriptor, value: Any, at: Location, problems: list[tuple[Location, str]]
) -> int | None:
    numbers = {enum_name(enum, item.number): item.number for item in enum.values}
    full = {item.name: item.number for item in enum.values}
    number = numbers.get(str(value), full.get(str(value)))
    if number is None:
        known = ", ".join(name for name in numbers if name != "unspecified")
        problems.append((at, f"is {value!r}; known are {known}"))
    return number


def _prefix(enum: EnumDescriptor) -> str:
    words = re.sub(r"(?<!^)(?=[A-Z])", "_", enum.name)
    return f"{words}_".upper()


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _known(message: Message) -> str:
    return ", ".join(
        field.name for field in message.DESCRIPTOR.fields if not field.GetOptions().deprecated
    )
