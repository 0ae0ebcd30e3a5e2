# SPDX-License-Identifier: Apache-2.0
"""YAML files whose errors name the line."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from granulo_client.errors import UsageError

Location = tuple[str | int, ...]
"""Keys and indices that lead to a value."""


@dataclass(frozen=True)
class YamlFile:
    """Content of a YAML file and the line of each of its keys and values."""

    source: str
    """The file's name, for messages."""
    content: Any
    lines: Mapping[Location, int]

    def line(self, location: Location) -> int:
        """Line of the deepest part of a location that the file has."""
        while location and location not in self.lines:
            location = location[:-1]
        return self.lines.get(location, 1)

    def problem(self, location: Location, text: str) -> str:
        """One line that says where and what: ``study.yaml:7: render[0].cuont: …``."""
        return f"{self.source}:{self.line(location)}: {dotted(location)}: {text}"


def load_yaml(path: Path) -> YamlFile:
    """Read a YAML (or JSON) file.

    Raises
    ------
    UsageError
        It is not there, is no YAML, or has the same key twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(f"{path} does not exist. Check the path.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read as text: {error}.") from error
    try:
        if path.suffix.lower() == ".json":
            return _load_json(path, text)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
    except json.JSONDecodeError as error:
        raise UsageError(f"{path}:{error.lineno}: is no JSON: {error.msg}.") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UsageError(f"{path}:{line}: is no YAML: {error.problem}.") from error
    except yaml.YAMLError as error:
        raise UsageError(f"{path}: is no YAML: {error}.") from error
    lines: dict[Location, int] = {}
    if root is not None:
        _index(root, (), lines, path)
    return YamlFile(str(path), content, lines)


def dotted(location: Location) -> str:
    """Write a location as ``render[0].count``."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return text.removeprefix(".") or "the file"


def _load_json(path: Path, text: str) -> YamlFile:
    """Read JSON, of which YAML reads nearly all: numbers and escapes are JSON's own."""
    content = json.loads(text)
    lines: dict[Location, int] = {}
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:  # indented by tabs
        return YamlFile(str(path), content, lines)
    if root is not None:
        _index(root, (), lines, path)
    return YamlFile(str(path), content, lines)


def _index(node: yaml.Node, at: Location, lines: dict[Location, int], path: Path) -> None:
    lines.setdefault(at, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*at, str(key.value))
            line = key.start_mark.line + 1
            if here in lines:
                raise UsageError(
                    f"{path}:{line}: {dotted(here)}: stands here for the second time "
                    f"(first in line {lines[here]}); keep one."
                )
            lines[here] = line
            _index(value, here, lines, path)
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            _index(value, (*at, i), lines, path)
