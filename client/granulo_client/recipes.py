# SPDX-License-Identifier: Apache-2.0
"""Recipe files: the fields of ``granulo.render.v1.Recipe`` in YAML.

A bare number stands for a fixed value: ``faces: 6`` is ``faces: {value: 6}``.
"""

import math
from pathlib import Path
from typing import Any, cast

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from granulo.render.v1 import recipe_pb2
from granulo_client.errors import FieldViolation, UsageError
from granulo_client.yamlfile import Location, YamlFile, dotted, load_yaml

_INTEGERS = frozenset({FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64})


def load_recipe(path: Path | str) -> recipe_pb2.Recipe:
    """Read a recipe file.

    Structure is checked here, with line numbers; ranges are checked by the renderer.

    Raises
    ------
    UsageError
        Names every key and value that does not belong, each with its line.
    """
    file = load_yaml(Path(path))
    recipe = recipe_pb2.Recipe()
    problems: list[tuple[Location, str]] = []
    _fill(recipe, file.content, (), problems)
    _raise(file, problems)
    return recipe


def _raise(file: YamlFile, problems: list[tuple[Location, str]]) -> None:
    if problems:
        raise UsageError(
            "\n".join(file.problem(location, text) for location, text in problems),
            reason="FIELD_INVALID",
            violations=[FieldViolation(dotted(location), text) for location, text in problems],
        )


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
        for name, item in value.items():
            _fill(getattr(message, field.name)[str(name)], item, (*at, str(name)), problems)
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
        return str(value)
    if not _is_number(value) or not math.isfinite(value):
        problems.append((at, f"is {value!r}; give a finite number"))
        return None
    if field.cpp_type not in _INTEGERS:
        return float(value)
    if value != int(value) or not -(2**31) <= value < 2**31:
        problems.append((at, f"is {value!r}; give a whole number"))
        return None
    return int(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _known(message: Message) -> str:
    return ", ".join(field.name for field in message.DESCRIPTOR.fields)
