# SPDX-License-Identifier: GPL-3.0-or-later
"""The model card of a version: what it is, what it was made from, what it can and cannot do."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from granulo_core.imaging.instances import InstanceParams
from granulo_core.store.manifest import Producer
from granulo_trainer.domain.config import TrainingConfig
from granulo_trainer.domain.tuning import Tuning
from granulo_trainer.lineage import ANNOTATED, ANY_MODALITY, Source

NAME = "MODEL_CARD.md"
PICTURE_NAME = "training_data.png"
_FIGURES = {
    "dsc": "DSC (pixels)",
    "ap50": "AP50",
    "ap75": "AP75",
    "count_error": "count error",
}
_SETS = {
    "validation": "validation images of the user, annotated",
    "heldout": "renders that were kept back",
    "base_validation": "validation images of the user, with the first weights",
    "base_heldout": "renders that were kept back, with the first weights",
}
_ABOUT_FIGURES = (
    "AP50 and AP75 are TP/(TP+FP+FN) at IoU 0.50 and 0.75, means over the images. Renders that "
    "were kept back come from the recipes that were trained on: expect less of micrographs."
)
_ABOUT_LICENCE = (
    "The trainer's setting `GRANULO_WEIGHTS_LICENCE` says what stands here; its default is the "
    "licence of the services and of the packaged model. Whoever trains on renders of their own "
    "recipes may choose another."
)
_SHOWN_PACKAGES = ("tensorflow-cpu", "tensorflow", "keras", "numpy", "opencv-python-headless")


@dataclass(frozen=True)
class CardFacts:
    """Everything that a card says."""

    version: str
    config: TrainingConfig
    epoch: int
    chosen: str
    """One sentence: how the epoch was chosen."""
    figures: Mapping[str, float]
    """Of that epoch."""
    precision: str
    """What the training computed in."""
    instances: InstanceParams
    tuning: Tuning | None
    parameter_count: int
    weights_digest: str
    outputs: Sequence[str]
    sources: Sequence[Source]
    trained_px: tuple[float, float] | None
    """Smallest and largest median diameter that the network has seen, in pixels of its input."""
    base_version: str
    base_digest: str
    """Of its manifest; empty without a base version."""
    labelled: int
    """Annotated validation images."""
    producer: Producer
    licence: str
    has_picture: bool


def write_card(facts: CardFacts) -> str:
    """Write the card.

    Returns
    -------
    str
        Markdown; the picture is a file beside it, `PICTURE_NAME`.
    """
    parts = (
        f"# Model card: `{facts.version}`",
        _intended_use(facts),
        _table(("", ""), _overview(facts)),
        "## Training data",
        _table(
            ("dataset", "recipe", "seed", "images", "particles", "imitates", "shapes", "made by"),
            [_source_row(source) for source in facts.sources],
        ),
        "Lineage, by the digests of the manifests:",
        "\n".join(_lineage(facts)),
        f"![Examples of the training data with the true outlines]({PICTURE_NAME})"
        if facts.has_picture
        else "No picture: there is no rendered image among the training data.",
        "## Figures",
        facts.chosen,
        _figures(facts),
        _ABOUT_FIGURES,
        "## Thresholds",
        _thresholds(facts),
        "## Limits",
        "\n".join(f"- {line}" for line in _limits(facts)),
        "## Licence",
        f"{facts.licence}. {_ABOUT_LICENCE}",
    )
    return "\n\n".join(parts) + "\n"


def _intended_use(facts: CardFacts) -> str:
    method = (
        "Its distance output tells touching particles apart."
        if facts.config.predicts_instances
        else "It predicts a mask; the watershed of the paper's recipe divides it into particles."
    )
    real = any(source.recipe == ANNOTATED for source in facts.sources)
    seen = "rendered and annotated real" if real else "rendered"
    return (
        "Segments particles in grey-level micrographs, for statistics of their sizes and shapes "
        f"with `granulo segment --model {_short(facts.version)}`. {method} It was trained on "
        f"{seen} images. Not meant for single decisions without a look at the overlay."
    )


def _overview(facts: CardFacts) -> Iterator[tuple[str, str]]:
    config, made = facts.config, facts.producer
    widths = ", ".join(str(count) for count in config.filters)
    yield "network", f"preset `{config.preset}`, feature maps {widths}"
    yield "parameters", f"{facts.parameter_count:,}"
    yield "outputs", ", ".join(f"`{name}`" for name in facts.outputs)
    yield "weights", f"`{facts.weights_digest}`"
    yield "precision", f"trained in `{facts.precision}`, exported in float32, outputs float16"
    yield (
        "budget",
        f"at most {config.total_steps:,} steps of {config.batch_size} patches of "
        f"{config.patch_px}² px in {config.epochs} epochs"
        + (f", {config.max_minutes:g} minutes" if config.max_minutes else "")
        + f"; learning rate {config.learning_rate:g}, seed {config.seed}",
    )
    yield "exported", f"epoch {facts.epoch}"
    packages = [f"{n} {made.packages[n]}" for n in _SHOWN_PACKAGES if n in made.packages]
    yield "made with", ", ".join([f"Granulo {made.version}", *packages])
    yield "revision", f"`{made.git_revision}`" if made.git_revision else "not known"


def _source_row(source: Source) -> tuple[str, ...]:
    return (
        f"`{source.name}`",
        source.recipe,
        str(source.seed),
        f"{source.images:,}",
        "" if source.particles is None else f"{source.particles:,}",
        source.modality,
        ", ".join(source.shapes),
        source.maker,
    )


def _lineage(facts: CardFacts) -> Iterator[str]:
    for source in facts.sources:
        yield f"- `{source.name}`: `{source.digest}`"
    if facts.base_version:
        yield f"- first weights from `{facts.base_version}`: `{facts.base_digest}`"


def _figures(facts: CardFacts) -> str:
    rows = []
    for prefix, title in _SETS.items():
        values = [facts.figures.get(f"{prefix}_{name}") for name in _FIGURES]
        if any(value is not None for value in values):
            shown = ["" if value is None else f"{value:.3f}" for value in values]
            rows.append((title, *shown))
    if not rows:
        return (
            "Nothing was measured: there was neither an annotated validation image nor a render "
            "that was kept back."
        )
    return _table(("images", *_FIGURES.values()), rows)


def _thresholds(facts: CardFacts) -> str:
    values = facts.instances.to_json().items()
    table = _table(("threshold", "value"), [(f"`{name}`", f"{value:g}") for name, value in values])
    return f"{_tuned(facts)}\n\n{table}"


def _tuned(facts: CardFacts) -> str:
    if not facts.config.predicts_instances:
        return "Mask above 0.51, as in the paper; not tuned."
    begun = f"Those of `{facts.base_version}`" if facts.base_version else "The defaults"
    tuning = facts.tuning
    if tuning is None:
        return (
            f"{begun}. They are tuned where two renders or more are kept back, that is from 32 "
            "rendered scenes on."
        )
    searched = (
        f"{tuning.candidates} thresholds were tried on {tuning.images} looks of {tuning.scenes} "
        "renders that were kept back, never on the user's images"
    )
    if tuning.tuned_ap == tuning.default_ap:
        return (
            f"{begun}: {searched}, and none was better beyond chance (mean AP "
            f"{tuning.default_ap:.3f})."
        )
    return (
        f"Tuned: {searched}; mean AP {tuning.default_ap:.3f} with {begun[0].lower()}{begun[1:]}, "
        f"{tuning.tuned_ap:.3f} with these (gain ± {tuning.standard_error:.3f}, standard error)."
    )


def _limits(facts: CardFacts) -> Iterator[str]:
    if facts.trained_px is not None:
        low, high = facts.trained_px
        yield (
            f"Particles of a median diameter of {low:.0f} to {high:.0f} px at the network's input "
            "were trained on; much smaller ones are merged or missed."
        )
    modalities = {source.modality for source in facts.sources if source.modality}
    if modalities and not modalities & {"transmission", ANY_MODALITY}:
        yield "Only particles brighter than the ground were trained on, none in transmission."
    elif modalities == {"transmission"}:
        yield "Only dark particles on a bright ground (transmission) were trained on."
    elif modalities:
        yield "Dark particles on a bright ground (transmission) are rare in the training data."
    if modalities and ANY_MODALITY not in modalities:
        yield f"Other microscopes than these were not imitated: {', '.join(sorted(modalities))}."
    shapes = sorted({shape for source in facts.sources for shape in source.shapes})
    if shapes:
        yield f"Shapes in the training data: {', '.join(shapes)}; others may be divided or merged."
    if facts.labelled:
        plural = "s" if facts.labelled != 1 else ""
        yield (
            f"The epoch was chosen on {facts.labelled} annotated validation image{plural}: expect "
            "somewhat less on others."
        )
    else:
        yield (
            "No annotated micrograph was among the validation images: how accurate it is on real "
            "ones is unknown."
        )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]] | Iterator[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def _short(version: str) -> str:
    return version.removeprefix("models/").replace("/versions/", "/")
