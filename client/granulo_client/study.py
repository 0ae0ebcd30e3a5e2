# SPDX-License-Identifier: Apache-2.0
"""STUDY.yaml: the whole workflow as one file; ``docs/study.schema.json`` is made from it."""

import json
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from granulo_client.errors import FieldViolation, UsageError
from granulo_client.yamlfile import Location, dotted, load_yaml

_INT32 = 2**31 - 1


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class RenderItem(_Section):
    """One rendered dataset."""

    recipe: str = Field(
        min_length=1,
        description="A preset's name (sio2, tio2) or a recipe file, relative to the study.",
    )
    count: int = Field(ge=1, le=100_000, description="Number of scenes.")
    seed: int = Field(default=0, description="Equal seeds give equal bytes.")
    size_px: int | None = Field(
        default=None,
        ge=1,
        le=_INT32,
        description="Side of the images and labels; the recipe's by default.",
    )


class TrainingItem(RenderItem):
    """One rendered dataset to train on."""

    weight: float | None = Field(
        default=None,
        gt=0,
        description="Share of the training patches that come from it, relative to the others (1 "
        "where it is left out); in proportion to the numbers of scenes where no dataset has one.",
    )


class ValidationItem(_Section):
    """A micrograph that is predicted after every epoch and never trained on."""

    image: Path = Field(description="Micrograph, relative to the study.")
    labels: Path | None = Field(
        default=None, description="Its instance labels, where there are some: then it is scored."
    )


class TrainSection(_Section):
    """How the network is trained, on all datasets of `render`."""

    model: str = Field(default="particles", min_length=1, description="Name of the model.")
    preset: Literal["small", "base", "paper"] | None = Field(
        default=None, description="Network; by default that of `base_version`, else small."
    )
    epochs: int | None = Field(
        default=None, ge=1, le=_INT32, description="The preset's by default."
    )
    steps_per_epoch: int | None = Field(
        default=None, ge=1, le=_INT32, description="The preset's by default."
    )
    batch_size: int | None = Field(
        default=None, ge=1, le=_INT32, description="Patches per step; the preset's by default."
    )
    patch_px: int | None = Field(
        default=None, ge=1, le=_INT32, description="Side of a patch; the preset's by default."
    )
    learning_rate: float | None = Field(default=None, gt=0, description="The preset's by default.")
    seed: int = Field(default=0, description="Seed of the training.")
    max_steps: int | None = Field(
        default=None, ge=1, le=_INT32, description="Steps, where epochs do not end it before."
    )
    max_minutes: float | None = Field(
        default=None, gt=0, description="Minutes, where epochs do not end it before."
    )
    early_stopping_epochs: int | None = Field(
        default=None, ge=1, le=_INT32, description="Epochs in a row without a better figure."
    )
    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"] = Field(
        default="auto", description="What is computed in; auto is the fastest."
    )
    deterministic: bool = Field(
        default=False, description="The same weights bit by bit, interrupted or not; slower."
    )
    base_version: str | None = Field(
        default=None,
        min_length=1,
        description="MODEL or MODEL/VERSION of the same network, whose weights are the first ones: "
        "default is the model that comes with Granulo, while no other is promoted.",
    )
    width: float | None = Field(
        default=None,
        gt=0,
        le=4,
        description="Factor on the numbers of feature maps; by default that of `base_version`.",
    )
    validation: tuple[ValidationItem, ...] = Field(
        default=(), description="Micrographs predicted after every epoch."
    )


class SegmentSection(_Section):
    """What is segmented, and how."""

    images: tuple[str, ...] = Field(
        default=(), description="Micrographs: files or patterns such as images/*.tif."
    )
    heldout: tuple[RenderItem, ...] = Field(
        default=(),
        description="Renders that were never trained on; their true labels score the network.",
    )
    model: str | None = Field(
        default=None,
        min_length=1,
        description="MODEL or MODEL/VERSION; by default the one that `train` makes, else default.",
    )
    method: Literal["default", "paper"] = Field(
        default="default", description="How instances are made from the network's outputs."
    )
    pixel_size_nm: float | None = Field(
        default=None, gt=0, description="Of `images`; goes before what the files say."
    )

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.images and not self.heldout:
            raise ValueError("needs images or heldout")
        return self


class EvaluateSection(_Section):
    """True labels of `segment.images`."""

    truth: Path = Field(
        description="Folder with X_labels.tif, X_labels.png, X_m.tif, X.png or X.tif for image X."
    )
    content_height_px: int = Field(
        default=0, ge=0, le=_INT32, description="Rows from here on are left out; 0 leaves none out."
    )


class Study(_Section):
    """The whole workflow: render, train, promote, segment, analyse, evaluate."""

    version: Literal[1] = Field(default=1, description="Version of this format.")
    render: tuple[TrainingItem, ...] = Field(default=(), description="Datasets to train on.")
    train: TrainSection | None = Field(default=None, description="Left out: no network is trained.")
    segment: SegmentSection | None = Field(
        default=None, description="Left out: nothing is segmented and analysed."
    )
    evaluate: EvaluateSection | None = Field(
        default=None, description="Left out: only `segment.heldout` is scored."
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.train is not None and not self.render:
            raise ValueError("train needs at least one dataset under render")
        if self.evaluate is not None and not (self.segment and self.segment.images):
            raise ValueError("evaluate needs images under segment")
        if not self.render and self.segment is None:
            raise ValueError("is empty: give at least render or segment")
        return self


def load_study(path: Path) -> Study:
    """Read a study file.

    Raises
    ------
    UsageError
        Names every key and value that does not belong, each with its line.
    """
    file = load_yaml(path)
    if not isinstance(file.content, dict):
        raise UsageError(f"{path}:1: must be a mapping; `granulo study init` writes an example.")
    try:
        return Study.model_validate(file.content)
    except ValidationError as error:
        # An unknown key is told before the missing one that was probably meant.
        found = sorted(
            error.errors(include_url=False, include_context=False),
            key=lambda item: item["type"] != "extra_forbidden",
        )
        problems = [
            (item["loc"], _sentence(item["type"], item["msg"], item["loc"])) for item in found
        ]
        raise UsageError(
            "\n".join(file.problem(location, text) for location, text in problems),
            reason="FIELD_INVALID",
            violations=[FieldViolation(dotted(location), text) for location, text in problems],
        ) from None


def json_schema() -> str:
    """JSON schema of study files, for editors and for the docs."""
    schema: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Study.model_json_schema(),
    }
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _sentence(kind: str, message: str, location: Location) -> str:
    if kind == "extra_forbidden":
        return f"is no known key; known here are {', '.join(_known(location))}"
    if kind == "missing":
        return "is missing; add it"
    return message.removeprefix("Value error, ").removeprefix("Input ")


def _known(location: Location) -> list[str]:
    """Keys of the section that holds a location."""
    section: type[BaseModel] = Study
    by_key: dict[str, type[BaseModel]] = {
        "render": TrainingItem,
        "heldout": RenderItem,
        "train": TrainSection,
        "validation": ValidationItem,
        "segment": SegmentSection,
        "evaluate": EvaluateSection,
    }
    for part in location[:-1]:
        section = by_key.get(str(part), section)
    return list(section.model_fields)


EXAMPLE = """\
# A Granulo study: `granulo run STUDY.yaml` works through it. The same command again continues where
# it stopped. Paths are relative to this file. Keys and values: docs/study.schema.json.
version: 1

# Scenes with exact labels, rendered to train on.
render:
  - recipe: sio2          # a preset, or a recipe file such as my-recipe.yaml
    count: 24             # number of scenes
    seed: 1               # equal seeds give equal bytes
    size_px: 512          # side of the images; the recipe's when left out
  - recipe: tio2
    count: 24
    seed: 2

# The network. Leave this section out to segment with the model that comes with Granulo.
train:
  model: particles        # its name; a trained version is promoted, that is: served
  preset: small           # small, or paper for the U-Net of the publication
  # epochs: 20            # the preset's when left out; also steps_per_epoch, batch_size,
  #                       # patch_px, learning_rate, seed, width
  # max_minutes: 15       # ends it before the last epoch; also max_steps, early_stopping_epochs
  # deterministic: true   # the same weights bit by bit, interrupted or not; slower
  # validation:           # micrographs predicted after every epoch, never trained on
  #   - image: validation/sample.tif
  #     labels: validation/sample_labels.tif

# What is segmented and analysed.
segment:
  # images:               # your own micrographs: files or patterns
  #   - images/*.tif
  # pixel_size_nm: 7.3    # goes before what the files say; without any, lengths are in pixels
  # model: default        # by default the one trained above
  method: default         # or paper: threshold, area opening, distance-transform watershed
  heldout:                # renders of another seed: their true labels score the network
    - recipe: tio2
      count: 4
      seed: 1000

# True labels of your images, where you have some: X_labels.tif, X_m.tif, … for image X.
# evaluate:
#   truth: truth
"""
