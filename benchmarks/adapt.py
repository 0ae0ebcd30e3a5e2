# SPDX-License-Identifier: GPL-3.0-or-later
"""Learning rate and replay of `granulo adapt`: what is gained, and what is forgotten.

``python benchmarks/adapt.py [RECIPE] [--steps N] [--data DIR]`` trains the default model further on
24 scenes of a recipe, with and without 12 scenes of ``mixed_any`` beside them, and scores each
result on renders of other seeds: of the recipe, of ``mixed_any``, and of ``tio2``, which is never
among the scenes. The same command again continues.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path

from granulo.analyzer.v1.analyzer_service_pb2 import EvaluationPair
from granulo.render.v1.render_service_pb2 import Dataset
from granulo_client import Client
from granulo_client.adaptation.gain import estimate
from granulo_client.recipes import recipe_source
from granulo_client.standalone import Standalone

SCENES = 24
SCORED = {"recipe": 8, "mixed_any": 12, "tio2": 6}
RATES = (0.0005, 0.002)
SHARES = (0.25, 0.0)
"""Of the patches that come from ``mixed_any``."""

Scores = Mapping[str, Sequence[float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", nargs="?", default="examples/heldout.yaml")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--data", type=Path, default=Path("adapt-benchmark"))
    arguments = parser.parse_args()
    standalone = Standalone.join(arguments.data.absolute())
    try:
        with Client(standalone.address, alive=standalone.alive) as client:
            for row in measure(client, arguments.recipe, arguments.steps):
                print(row, flush=True)
    finally:
        standalone.leave()


def measure(client: Client, recipe: str, steps: int) -> Iterator[str]:
    """Rows of the table, in Markdown."""
    source = recipe_source(recipe).recipe
    scored = {
        name: client.render(
            source if name == "recipe" else name, count=count, seed=1_000_003
        ).result()
        for name, count in SCORED.items()
    }
    material = client.render(source, count=SCENES, seed=0).result().name
    others = client.render("mixed_any", count=SCENES // 2, seed=0).result().name
    yield f"| learning rate | replay | {' | '.join(scored)} |"
    yield "|---|---|" + "---|" * len(scored)
    before = {name: score(client, dataset, "default") for name, dataset in scored.items()}
    yield _row("default model", "", before, None)
    for rate, share in product(RATES, SHARES):
        version = client.train(
            [material, others] if share else [material],
            weights={material: 1.0 - share, others: share} if share else None,
            model="adapted",
            epochs=-(-steps // 40),
            steps_per_epoch=40,
            max_steps=steps,
            learning_rate=rate,
            base_version="default",
        ).result()
        client.promote(version.name)
        after = {name: score(client, item, version.name) for name, item in scored.items()}
        yield _row(f"{rate:g}", f"{share:.0%}", after, before)


def score(client: Client, dataset: Dataset, model: str) -> list[float]:
    """AP50 of each scene."""
    found = client.segment(dataset.name, model=model).result()
    pairs = [
        EvaluationPair(
            predicted=item.labels, truth=truth, truth_kind=EvaluationPair.TRUTH_KIND_INSTANCES
        )
        for item, truth in zip(found.results, dataset.labels, strict=True)
    ]
    return [image.metrics["ap50"] for image in client.evaluate(pairs).images]


def _row(rate: str, share: str, scores: Scores, before: Scores | None) -> str:
    cells = []
    for name, values in scores.items():
        cell = f"{estimate(values).value:.3f}"
        if before is not None:
            gain = estimate([b - a for a, b in zip(before[name], values, strict=True)])
            cell += f" ({gain.value:+.3f}, {gain.lower:+.3f} to {gain.upper:+.3f})"
        cells.append(cell)
    return f"| {rate} | {share} | {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
