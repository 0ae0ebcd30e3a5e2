# SPDX-License-Identifier: GPL-3.0-or-later
"""What a report says in sentences."""

import math

from granulo_analyzer.domain import counting
from granulo_analyzer.domain.ensemble import Ensemble
from granulo_analyzer.domain.statistics import MIN_COUNT_FOR_MODES
from granulo_analyzer.report.tables import family
from granulo_analyzer.report.words import interval, percent, plural, significant

_MANY_AT_FRAME = 0.25
_MANY_MODES_P = 0.05
_AT_FRAME = {
    counting.MILES_LANTUEJOUL: "The weights of the counting rule make up for them in the mean, but "
    "few large particles then stand for many.",
    counting.EXCLUDE_BORDER: "The large ones among them are missing from the distribution more "
    "often than the small ones.",
    counting.COUNT_ALL: "",
    counting.TWO_EDGES: "Those at the other two edges count with the part that is seen.",
}
_VERDICTS = {
    "nanomaterial": "Nanomaterial",
    "not_nanomaterial": "Not a nanomaterial",
    "undecided": "Undecided",
}


def abstract(ensemble: Ensemble) -> str:
    """The result in a paragraph."""
    where = plural(len(ensemble.images), "image")
    if not ensemble.listed:
        return f"No particle was found in {where}."
    if not ensemble.counted:
        reasons = []
        if ensemble.at_frame:
            reasons.append(f"{ensemble.at_frame} at the frame")
        if ensemble.unsure:
            reasons.append(f"{ensemble.unsure} not sure enough")
        return (
            f"{plural(ensemble.listed, 'particle')} in {where}, of which none was counted"
            f"{': ' * bool(reasons)}{', '.join(reasons)}."
        )
    ecd, unit = ensemble.distributions["ecd"], ensemble.unit
    level = percent(ensemble.settings.confidence_level)
    text = (
        f"{plural(ensemble.counted, 'particle')} in {where} "
        f"{'was' if ensemble.counted == 1 else 'were'} measured. "
        f"The median equivalent circular diameter is {significant(ecd.median)} {unit}"
    )
    if ecd.count > 1:
        text += f" ({level} interval {interval(ecd.figures['median'])} {unit})"
    if ecd.count >= MIN_COUNT_FOR_MODES:
        text += (
            f"; ten per cent of the particles are below {significant(ecd.p10)} {unit} and "
            f"ten per cent above {significant(ecd.p90)} {unit}"
        )
    if at_frame := ensemble.at_frame:
        verb = "touches" if at_frame == 1 else "touch"
        text += (
            f". {at_frame} more {verb} the frame and {'is' if at_frame == 1 else 'are'} left out"
        )
    return text + "."


def notes(ensemble: Ensemble) -> list[str]:
    """What makes the figures doubtful."""
    found = ensemble.warnings()
    known = sum(image.pixel_size_nm is not None for image in ensemble.images)
    if not known:
        found.append(
            "The pixel size is unknown: all lengths are in pixels. Give it with the images to get "
            "nanometres."
        )
    elif ensemble.unit == "px":
        found.append(
            f"Only {known} of {len(ensemble.images)} images have a pixel size, so that the set is "
            "reported in pixels; images of different magnification are then not comparable."
        )
    empty = [image.name for image in ensemble.images if not image.listed]
    if empty and ensemble.listed:
        found.append(f"No particle was found in {', '.join(empty[:5])}{'…' * (len(empty) > 5)}.")
    share = ensemble.at_frame / ensemble.listed if ensemble.listed else 0.0
    if ensemble.counted and share > _MANY_AT_FRAME:
        found.append(
            f"{100 * share:.0f} % of the particles are left out at the frame. "
            f"{_AT_FRAME[ensemble.settings.rule]} A lower magnification would help."
        )
    return found


def verdict(ensemble: Ensemble) -> tuple[str, str]:
    """Whether it is a nanomaterial: the verdict, and what it rests on."""
    found = ensemble.findings.nanomaterial
    if found is None:
        why = "no particle was counted"
        if ensemble.unit != "nm":
            why = "the pixel size is unknown"
        elif ensemble.counted:
            why = "every particle has a minimum Feret diameter above 100 µm and need not be counted"
        return "Not judged", f"{why[0].upper()}{why[1:]}."
    level, share = percent(ensemble.settings.confidence_level), found.share
    return _VERDICTS[found.verdict], (
        f"{percent(share.value)} of {plural(found.count, 'particle')} by number have a minimum "
        f"Feret diameter of 1 to 100 nm ({level} interval {100 * share.lower:.3g} to "
        f"{100 * share.upper:.3g} %). The probability that half or more of the material's "
        f"particles do is {_probability(found.probability)}. Only what the projection shows is "
        "judged; the height of plates that lie flat is not seen."
    )


def advice(ensemble: Ensemble) -> str:
    """How many more particles the wanted precision takes."""
    text = ensemble.findings.advice.text
    return f"{text[0].upper()}{text[1:]}."


def fit(ensemble: Ensemble) -> str:
    """What the dashed lines are."""
    fits, root = ensemble.findings.fits, ensemble.distributions["sqrt_area"].lognormal
    parts = []
    if fits:
        parts.append(f"ECD: {family(fits[0])}, the model of the lowest BIC (Table 4)")
    if root is not None:
        parts.append(
            f"√area: log-normal, median {significant(root.median)} {ensemble.unit}, "
            f"GSD {significant(root.gsd, 3)}"
        )
    if not parts:
        return ""
    return f"Dashed: fits by maximum likelihood ({'; '.join(parts)})."


def modes(ensemble: Ensemble) -> str:
    """One mode or several."""
    found = ensemble.findings.bimodality
    if found is None:
        return ""
    says = "more than one mode" if found.p_value < _MANY_MODES_P else "no second mode"
    return (
        f"Silverman's test of one mode against several, in ln ECD: p = {found.p_value:.2g} "
        f"({found.replicates} replicates), {says} at the level of 5 %. The test errs on the side "
        "of one mode."
    )


def agglomeration(ensemble: Ensemble) -> str:
    """How far particles hang together."""
    found = ensemble.findings.agglomeration
    if found is None:
        return ""
    level = percent(ensemble.settings.confidence_level)
    index, size = (found.figures[name] for name in ("agglomeration_index", "mean_constituents"))
    text = (
        f"{percent(index.value)} of the particles touch another{{}}; what hangs together has "
        f"{significant(size.value, 3)} constituents in the mean{{}}."
    )
    if not math.isfinite(index.lower):
        return text.format("", "")
    return text.format(
        f" ({level} interval {100 * index.lower:.3g} to {100 * index.upper:.3g} %)",
        f" ({interval(size, 3)})",
    )


def units(ensemble: Ensemble) -> str:
    """What lengths are in."""
    if ensemble.unit == "px":
        return "Lengths are in pixels, areas in square pixels; nothing was converted."
    sizes = {image.pixel_size_nm for image in ensemble.images if image.pixel_size_nm}
    text = "Lengths are in nanometres, areas in square nanometres, angles in degrees"
    if len(sizes) > 1:
        text += "; the images have different pixel sizes"
    if any(x_nm != y_nm for x_nm, y_nm in sizes):
        text += "; pixels are not square, and lengths were computed from scaled coordinates"
    return text + "."


def _probability(value: float) -> str:
    if value < 0.001:
        return "below 0.001"
    return "above 0.999" if value > 0.999 else f"{value:.3f}"
