# SPDX-License-Identifier: Apache-2.0
"""Recipes as files that people edit: short forms, and the contract's own words as comments."""

import math
import re
import textwrap
from functools import cache
from pathlib import Path
from typing import Any, cast

import yaml
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from granulo.render.v1 import recipe_pb2
from granulo_client.recipes import enum_name

_WIDTH = 100
_LAWS = (
    "A number stands for itself or is a distribution: {uniform: {low, high}},",
    "{normal: {mean, stddev}}, {log_normal: {median, sigma}}, {choice: {values}},",
    "{empirical: {samples}} or {mixture: {components: [{weight, distribution}]}}.",
)
_LAW = recipe_pb2.Distribution.DESCRIPTOR
_MESSAGE = re.compile(r"message (\w+) \{")
_ENUM = re.compile(r"enum (\w+) \{")
_FIELD = re.compile(r"(?:repeated )?(?:map<[^>]*>|[\w.]+) (\w+) = \d+")


def recipe_document(message: Message) -> Any:
    """A recipe, or a part of one, as plain values in short form; `load_recipe` reads them back.

    Parameters
    ----------
    message : Message
        A ``Recipe`` or any message in it.
    """
    if isinstance(message, recipe_pb2.Distribution) and message.WhichOneof("kind") == "value":
        return _number(message.value)
    return {field.name: _value(message, field) for field in _given(message)}


def recipe_yaml(recipe: recipe_pb2.Recipe, title: str = "") -> str:
    """Write a recipe as YAML with a comment at the first use of every field.

    Parameters
    ----------
    recipe : Recipe
    title : str
        Comment at the top.
    """
    head = [*textwrap.wrap(title, _WIDTH - 2), *_LAWS]
    lines = [f"# {line}" for line in head]
    _block(recipe, 0, lines, set())
    return "\n".join(lines) + "\n"


def _given(message: Message) -> list[FieldDescriptor]:
    """Fields to write, in the contract's order."""
    given = {field.name for field, _ in message.ListFields()}
    # `{uniform: {high: 1}}` would be right, and read badly.
    of_law = message.DESCRIPTOR.full_name.startswith(f"{_LAW.full_name}.")
    return [
        cast("FieldDescriptor", field)
        for field in message.DESCRIPTOR.fields
        if field.name in given
        or (of_law and field.message_type is None)
        or _says_any(cast("FieldDescriptor", field))
    ]


def _says_any(field: FieldDescriptor) -> bool:
    """Whether an enum's field that is not set has a name that tells something."""
    if field.enum_type is None or field.is_repeated:
        return False
    return enum_name(field.enum_type, 0) != "unspecified"


def _value(message: Message, field: FieldDescriptor) -> Any:
    value = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return {name: recipe_document(value[name]) for name in sorted(value)}
    if field.is_repeated:
        return [_item(field, item) for item in value]
    return _item(field, value)


def _item(field: FieldDescriptor, value: Any) -> Any:
    if field.message_type is not None:
        return recipe_document(value)
    if field.enum_type is not None:
        return enum_name(field.enum_type, value)
    return _number(value) if isinstance(value, float) else value


def _number(value: float) -> float | int:
    """A whole number without its ``.0``, as people write it."""
    is_negative_zero = value == 0 and math.copysign(1, value) < 0
    return (
        int(value) if value.is_integer() and abs(value) < 1e15 and not is_negative_zero else value
    )


def _block(message: Message, indent: int, lines: list[str], told: set[str]) -> None:
    """Append a message's fields, one a line."""
    for field in _given(message):
        value = getattr(message, field.name)
        is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
        pad = " " * indent
        if field.full_name not in told:
            told.add(field.full_name)
            comment = _comment(message, field)
            width = max(40, _WIDTH - 2 - indent)
            lines += [f"{pad}# {line}" for line in textwrap.wrap(comment, width)]
        if is_map:
            lines.append(f"{pad}{field.name}:")
            for name in sorted(value):
                _leaf(name, recipe_document(value[name]), indent + 2, lines)
        elif field.message_type is None or isinstance(value, recipe_pb2.Distribution):
            _leaf(field.name, _value(message, field), indent, lines)
        elif field.is_repeated:
            lines.append(f"{pad}{field.name}:")
            for item in value:
                _list_item(item, indent + 2, lines, told)
        elif not _given(value):
            lines.append(f"{pad}{field.name}: {{}}")
        else:
            lines.append(f"{pad}{field.name}:")
            _block(value, indent + 2, lines, told)


def _comment(message: Message, field: FieldDescriptor) -> str:
    comment = _comments().get(f"{message.DESCRIPTOR.name}.{field.name}", "")
    if field.enum_type is None:
        return comment
    comment = comment or _comments().get(field.enum_type.name, "")
    names = [enum_name(field.enum_type, item.number) for item in field.enum_type.values]
    known = ", ".join(name for name in names if name != "unspecified")
    return f"{comment} Known are {known}.".strip()


def _list_item(item: Message, indent: int, lines: list[str], told: set[str]) -> None:
    """Append a message as an item of a list, with its dash before the first field."""
    inner: list[str] = []
    _block(item, indent + 2, inner, told)
    if not inner:
        lines.append(f"{' ' * indent}- {{}}")
        return
    first = next(i for i, line in enumerate(inner) if not line.lstrip().startswith("#"))
    inner[first] = f"{' ' * indent}- {inner[first].lstrip()}"
    lines += inner


def _leaf(name: str, value: Any, indent: int, lines: list[str]) -> None:
    """Append a key and its value: on one line where it fits, else one part a line."""
    pad = " " * indent
    key = _flow(name, math.inf)
    text = _flow(value, math.inf)
    if len(pad) + len(key) + 2 + len(text) <= _WIDTH or not isinstance(value, dict | list):
        lines.append(f"{pad}{key}: {text}")
    elif isinstance(value, dict):
        lines.append(f"{pad}{key}:")
        for inner, item in value.items():
            _leaf(inner, item, indent + 2, lines)
    elif all(isinstance(item, dict) for item in value):
        lines.append(f"{pad}{key}:")
        for item in value:
            wrapped = _flow(item, _WIDTH - indent - 4)
            lines.append(
                textwrap.indent(textwrap.indent(wrapped, "  ").replace("  ", "- ", 1), f"{pad}  ")
            )
    else:
        lines.append(f"{pad}{key}:")
        lines.append(textwrap.indent(_flow(value, _WIDTH - indent - 2), f"{pad}  "))


def _flow(value: Any, width: float) -> str:
    if isinstance(value, str) and not value.isprintable():
        # PyYAML would write a line break into the middle of a key or a value.
        escaped: str = yaml.safe_dump(value, default_style='"', width=math.inf)
        return escaped.removesuffix("\n")
    text: str = yaml.safe_dump(
        value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=width
    )
    return text.removesuffix("\n").removesuffix("\n...")


@cache
def _comments() -> dict[str, str]:
    """The contract's comments by ``Message.field`` and by enum, from the proto beside its code."""
    path = Path(recipe_pb2.__file__).with_name("recipe.proto")
    if not path.is_file():
        return {}
    comments: dict[str, str] = {}
    messages: list[str] = []
    pending: list[str] = []
    for line in (line.strip() for line in path.read_text(encoding="utf-8").splitlines()):
        if line.startswith("//"):
            pending.append(line.removeprefix("//").strip())
            continue
        if line.endswith("{"):
            opened = _MESSAGE.match(line)
            messages.append(opened.group(1) if opened else "")
            if enum := _ENUM.match(line):
                comments[enum.group(1)] = " ".join(pending)
        elif line.startswith("}"):
            messages.pop()
        elif field := _FIELD.match(line):
            named = [name for name in messages if name]
            comments[f"{named[-1]}.{field.group(1)}"] = " ".join(pending)
        pending = []
    return {name: text for name, text in comments.items() if text}
