# SPDX-License-Identifier: GPL-3.0-or-later
"""The packaged recipes, each a YAML file in this folder."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import MappingProxyType

from granulo_render.domain.recipe import Recipe
from granulo_render.recipe_file import load_recipe

_DESCRIPTIONS = {
    "sio2": "Silica: regular spheres of two diameters (90 and 160 nm), from single ones to piles.",
    "tio2": "Titania E171: four irregular shapes, agglomerated, 20 to 240 nm, mode 60 nm.",
    "ag_particles": "Silver: faceted crystals and grains, single, in chains and agglomerates.",
    "ag_rods": "Silver nanorods: 45 nm thick, mostly lying, singly, side by side and crossed.",
    "ag_wires": "Silver nanowires: 45 nm thick, up to 50 um long, crossing the whole image.",
    "spheres_any": "Spheres of any size, arrangement and microscope.",
    "mixed_any": "Any shape, size, arrangement and microscope: the widest randomisation.",
}


@dataclass(frozen=True)
class Preset:
    """A packaged recipe."""

    id: str
    description: str
    recipe: Recipe


@cache
def presets() -> Mapping[str, Preset]:
    """All presets by id."""
    folder = resources.files(__name__)
    found = {}
    for name, description in _DESCRIPTIONS.items():
        text = (folder / f"{name}.yaml").read_text(encoding="utf-8")
        found[name] = Preset(name, description, load_recipe(text, f"{name}.yaml"))
    return MappingProxyType(found)
