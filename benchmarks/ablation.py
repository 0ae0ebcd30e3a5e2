# SPDX-License-Identifier: GPL-3.0-or-later
"""What the parts of the method are worth (`make ablation`): ``ablation.py OUT``.

Three seeds of the quick default model, then the quick model without one part at a time, of the
first seed and with the same budget; AP50 on the labelled micrographs, which nothing is trained on.
A part that belongs to the use of a network (scale, instance outputs, painting over) is left out of
all three. Each training takes 11 minutes on 2 cores; the same command again continues.

Environment: ``SEEDS`` (default ``41 42 43``), ``ROWS`` (names, default all), ``MICROGRAPHS``.
"""

import copy
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import saved_model
import yaml
from compare_networks import image_sets

from granulo_core.imaging.labels import decode_labels
from granulo_core.imaging.matching import evaluate
from granulo_core.imaging.read import read_micrograph
from granulo_segmenter.domain import segmentation
from granulo_segmenter.domain.options import Method, Options

ROOT = Path(__file__).resolve().parent.parent
GRANULO = Path(sys.executable).parent / "granulo"
QUICK = ROOT / "examples" / "default-model" / "quick.yaml"
MAX_PX = 1 << 26
STEPS = 1200
"""What the seven minutes of the quick study come to on 2 idle cores."""

Recipe = dict[str, Any]


_EVERY_LOOK = """\
from dataclasses import replace
from granulo_core.imaging import modality

_drawn = modality.random_look
modality.random_look = lambda *given, **more: replace(_drawn(*given, **more), **{changes!r})
"""
"""A module that Python imports at its start, in the workers, too: training draws looks of its own
over the stored scenes, whatever their recipes say of the appearance."""


def no_agglomerates(recipe: Recipe) -> None:
    recipe["arrangement"].update(
        {"patterns": {"random": 1}, "cluster_size": 1, "stacking": 0, "overlap": 0}
    )


@dataclass(frozen=True)
class Row:
    """One part left out."""

    name: str
    title: str
    change: Callable[[Recipe], None] | None = None
    """Of the recipes."""
    look: Mapping[str, float] = field(default_factory=dict)
    """Of every look that is drawn. With neither, the part is left out of the use of the network."""


ROWS = (
    Row("scale", "input scale by self-consistency"),
    Row("instances", "instance outputs (the paper's recipe instead)"),
    Row("writing", "painting over of writing"),
    Row("nothing", "nothing, with the steps of the rows below", lambda _recipe: None),
    Row("rims", "edge brightness (M6)", look={"rim_strength": 0.0}),
    Row("agglomerates", "agglomerates, stacks and overlaps", no_agglomerates),
    Row("noise", "noise (M9)", look={"dose": 0.0, "gaussian_noise": 0.0, "line_noise": 0.0}),
)


def main(out: Path) -> None:
    seeds = [int(seed) for seed in (os.environ.get("SEEDS") or "41 42 43").split()]
    names = (os.environ.get("ROWS") or " ".join(row.name for row in ROWS)).split()
    complete = {seed: trained(out / str(seed), QUICK, seed) for seed in seeds}
    of_seed = {seed: scores(model) for seed, model in complete.items()}
    columns = list(of_seed[seeds[0]])
    print(f"| left out | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for seed, found in of_seed.items():
        print(
            f"| nothing, seed {seed} | {' | '.join(f'{value:.3f}' for value in found.values())} |"
        )
    whole = [[of_seed[seed][column] for seed in seeds] for column in columns]
    print(
        "| nothing (mean of the seeds ± their standard deviation) | "
        + " | ".join(f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}" for values in whole)
        + " |"
    )
    for row in ROWS:
        if row.name not in names:
            continue
        if row.change or row.look:
            study = without(row.change, out / row.name)
            got = scores(trained(out / row.name, study, seeds[0], row.look))
            cells = [f"{got[column]:.3f}" for column in columns]
        else:
            each = [scores(model, row.name) for model in complete.values()]
            cells = [f"{np.mean([one[column] for one in each]):.3f}" for column in columns]
        print(f"| {row.title} | {' | '.join(cells)} |", flush=True)


def without(change: Callable[[Recipe], None] | None, folder: Path) -> Path:
    """The quick study with changed recipes, and with steps instead of minutes."""
    folder.mkdir(parents=True, exist_ok=True)
    study = yaml.safe_load(QUICK.read_text())
    for item in study["render"]:
        name = item["recipe"]
        if name.endswith(".yaml"):
            text = (QUICK.parent / name).read_text()
        else:
            text = subprocess.run(
                [GRANULO, "recipes", "show", name], stdout=subprocess.PIPE, text=True, check=True
            ).stdout
        recipe = copy.deepcopy(yaml.safe_load(text))
        if change:
            change(recipe)
        item["recipe"] = str(folder / Path(name).with_suffix(".yaml").name)
        Path(item["recipe"]).write_text(yaml.safe_dump(recipe, sort_keys=False))
    # By steps, not by minutes: rows are comparable on a machine that does other things, too.
    study["train"].update(epochs=STEPS // study["train"]["steps_per_epoch"], max_minutes=60)
    study["segment"]["heldout"][0]["recipe"] = str(ROOT / "examples" / "heldout.yaml")
    path = folder / "quick.yaml"
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    return path


def trained(out: Path, study: Path, seed: int, look: Mapping[str, float] | None = None) -> Path:
    """SavedModel of a study, by the script of the default model, with every look changed."""
    model = out / "model"
    if not model.exists():
        environment = {**os.environ, "STUDY": str(study), "SEED": str(seed), "OUT": str(out)}
        if look:
            (out / "sitecustomize.py").write_text(_EVERY_LOOK.format(changes=dict(look)))
            environment["PYTHONPATH"] = str(out)
        subprocess.run(
            [sys.executable, ROOT / "scripts" / "default_model.py"],
            env=environment,
            stdout=sys.stderr,
            check=True,
        )
    return model


def scores(model: Path, left_out: str = "") -> dict[str, float]:
    """Mean AP50 of each set of micrographs."""
    facts, predict = saved_model.load(model)
    if left_out == "scale":
        facts = replace(facts, scale=None)
    options = Options(method=Method.PAPER if left_out == "instances" else Method.MODEL)
    folder = Path(os.environ.get("MICROGRAPHS") or ROOT.parent / "shared" / "micrographs")
    result = {}
    ink = segmentation.find_ink if left_out != "writing" else lambda _content: []
    with mock.patch.object(segmentation, "find_ink", ink):
        for item in image_sets(folder):
            values = []
            for image, truth in item.pairs:
                micrograph = read_micrograph(image, max_px=MAX_PX)
                found = segmentation.segment(micrograph, facts, predict, options=options)
                height = item.content_height_px or None
                true = decode_labels(truth)[:height].astype(np.uint32)
                values.append(evaluate(true, found.labels[:height])["ap50"])
            result[item.name] = float(np.mean(values))
    return result


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
