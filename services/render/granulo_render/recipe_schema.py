# SPDX-License-Identifier: GPL-3.0-or-later
"""JSON schema of recipe documents, for editors that check and complete them."""

import ast
import inspect
import json
import textwrap
from functools import cache
from typing import Any

from granulo_render.domain import recipe as domain
from granulo_render.domain.recipe import APPEARANCE, SHAPES, Recipe
from granulo_render.recipe_file import document_model

_LAW = {"$ref": "#/$defs/Distribution"}


def json_schema() -> str:
    """Text of ``docs/recipe.schema.json``: fields, their meaning, and what each may hold."""
    schema: dict[str, Any] = document_model(Recipe).model_json_schema()
    definitions = {name.lstrip("_"): part for name, part in schema.pop("$defs").items()}
    definitions["Distribution"] = _distribution(definitions.pop("Law"))
    schema["properties"]["appearance"] = {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            name: {**_LAW, "description": f"{text} ({low:g} to {high:g})"}
            for name, (low, high, text) in APPEARANCE.items()
        },
    }
    whole = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **_described("Recipe", schema),
        "title": "Granulo recipe",
        "$defs": {name: _described(name, part) for name, part in sorted(definitions.items())},
    }
    text = json.dumps(_without_null(whole), indent=2)
    return text.replace('"#/$defs/_Law"', '"#/$defs/Distribution"').replace("$defs/_", "$defs/")


def _distribution(law: dict[str, Any]) -> dict[str, Any]:
    block = {"type": "object", "minProperties": 1, "maxProperties": 1}
    block |= {"properties": law["properties"], "additionalProperties": False}
    return {"description": law["description"], "anyOf": [{"type": "number"}, block]}


def _described(name: str, part: dict[str, Any]) -> dict[str, Any]:
    """Add the domain's own words to the fields of a definition."""
    kind = getattr(domain, name, None)
    if kind is None or "properties" not in part:
        return part
    texts = _field_texts(kind)
    if kind is domain.ParticleClass:
        texts |= {field: inspect.getdoc(shape) or "" for field, shape in SHAPES.items()}
    fields = {
        field: {**value, **({"description": texts[field]} if field in texts else {})}
        for field, value in part["properties"].items()
    }
    return {**part, "description": inspect.getdoc(kind), "properties": fields}


@cache
def _field_texts(kind: type) -> dict[str, str]:
    """Docstrings below the fields of a class."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    assert isinstance(tree, ast.ClassDef)
    texts = {}
    for field, text in zip(tree.body, tree.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
        ):
            texts[field.target.id] = " ".join(str(text.value.value).split())
    return texts


def _without_null(part: Any) -> Any:
    """Leave out that fields may be null: documents leave such fields out."""
    if isinstance(part, list):
        return [_without_null(item) for item in part]
    if not isinstance(part, dict):
        return part
    options = part.get("anyOf", [])
    if {"type": "null"} in options:
        rest = [option for option in options if option != {"type": "null"}]
        kept = {k: v for k, v in part.items() if k not in ("anyOf", "default")}
        part = {**kept, **rest[0]} if len(rest) == 1 else {**kept, "anyOf": rest}
    return {name: _without_null(value) for name, value in part.items() if name != "title"} | (
        {"title": part["title"]} if part.get("title") == "Granulo recipe" else {}
    )
