# SPDX-License-Identifier: GPL-3.0-or-later
"""Statistics of simulated samples whose truth is known."""

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from granulo_analyzer.domain import bootstrap, counting
from granulo_analyzer.domain.advice import needed_for_mean_volume
from granulo_analyzer.domain.classes import classify
from granulo_analyzer.domain.ensemble import Ensemble, MeasuredImage, pool
from granulo_analyzer.domain.fits import fit_all
from granulo_analyzer.domain.settings import AnalysisSettings, UncertaintyLine

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))
from disc_images import FRAME_PX, image_of

MEDIAN_PX, SIGMA = 70.0, 0.35


def study(seed: int, *, images: int = 10, density: float = 25.0) -> list[MeasuredImage]:
    """Frames cut out of a plane of randomly placed discs with log-normal diameters."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(images):
        margin = 300.0
        side = FRAME_PX + 2 * margin
        count = rng.poisson(density * (side / FRAME_PX) ** 2)
        diameters = MEDIAN_PX * np.exp(SIGMA * rng.normal(size=count))
        x, y = rng.uniform(-margin, FRAME_PX + margin, (2, count))
        radius = diameters / 2
        seen = (abs(x - FRAME_PX / 2) < FRAME_PX / 2 + radius) & (
            abs(y - FRAME_PX / 2) < FRAME_PX / 2 + radius
        )
        edges = (x < radius) + 2 * (x > FRAME_PX - radius) + 4 * (y < radius)
        edges = edges + 8 * (y > FRAME_PX - radius)
        found.append(image_of(diameters[seen], edges[seen], number, 1.0))
    return found


def analysed(
    images: list[MeasuredImage], rule: counting.CountingRule, **changes: object
) -> Ensemble:
    settings = AnalysisSettings(rule=rule, replicates=200, **changes)  # type: ignore[arg-type]
    return pool(images, settings)


@pytest.fixture(scope="module")
def studies() -> list[list[MeasuredImage]]:
    return [study(seed) for seed in range(20)]


def test_the_border_correction_is_unbiased_and_its_interval_holds_the_truth(
    studies: list[list[MeasuredImage]],
) -> None:
    truth = MEDIAN_PX * np.exp(SIGMA**2 / 2)
    inside, corrected, uncorrected = 0, [], []
    for images in studies:
        mean = analysed(images, counting.MILES_LANTUEJOUL).distributions["ecd"].figures["mean"]
        inside += mean.lower <= truth <= mean.upper
        corrected.append(mean.value)
        other = analysed(images, counting.EXCLUDE_BORDER).distributions["ecd"].figures["mean"]
        uncorrected.append(other.value)
    # 95 % intervals: of 20, fewer than 15 would be seen once in some thousand such runs.
    assert inside >= 15
    assert np.mean(corrected) == pytest.approx(truth, rel=0.01)
    assert np.mean(uncorrected) < 0.98 * truth


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_five_hundred_studies_of_cut_frames() -> None:
    """Means and medians of five hundred studies; the uncorrected are biased beyond any doubt."""
    truths = {"mean": MEDIAN_PX * np.exp(SIGMA**2 / 2), "median": MEDIAN_PX}
    inside = dict.fromkeys(truths, 0)
    errors: dict[tuple[str, str], list[float]] = {}
    for seed in range(1000, 1500):
        images = study(seed)
        for rule in (counting.MILES_LANTUEJOUL, counting.EXCLUDE_BORDER):
            figures = analysed(images, rule).distributions["ecd"].figures
            for name, truth in truths.items():
                errors.setdefault((rule.name, name), []).append(figures[name].value / truth - 1)
                if rule is counting.MILES_LANTUEJOUL:
                    inside[name] += figures[name].lower <= truth <= figures[name].upper
    for (rule_name, name), found in errors.items():
        error = np.std(found) / np.sqrt(len(found))
        print(f"\n{rule_name}: bias of the {name} {np.mean(found):+.2%} ± {error:.2%}")
        if rule_name == counting.EXCLUDE_BORDER.name:
            assert np.mean(found) < -5 * error
        else:
            assert abs(np.mean(found)) < 0.005
    for name, count in inside.items():
        print(f"{name}: {count / 500:.1%} of the 95 % intervals hold the truth")
        assert count >= 0.93 * 500


def test_the_correction_weighs_a_particle_by_the_places_that_it_fits_into() -> None:
    image = image_of(np.array([60.0, 300.0]), np.array([0, 0]), 0, 1.0)
    weights = counting.weights(counting.MILES_LANTUEJOUL, image.columns, FRAME_PX, FRAME_PX)
    assert weights == pytest.approx([(600 / 540) ** 2, 4.0])


def test_the_rules_count_what_they_say() -> None:
    image = image_of(np.full(5, 50.0), np.array([0, 1, 2, 4, 8]), 0, 1.0)
    counted = {
        rule.name: counting.weights(rule, image.columns, FRAME_PX, FRAME_PX) > 0
        for rule in counting.RULES.values()
    }
    assert counted["exclude_border"].tolist() == [True, False, False, False, False]
    assert counted["count_all"].all()
    assert counted["two_edges"].tolist() == [True, True, False, False, True]


@pytest.mark.parametrize(
    ("median_nm", "verdict"),
    [(80.0, "nanomaterial"), (125.0, "not_nanomaterial"), (100.0, "undecided")],
)
def test_the_verdict_follows_the_share_below_100_nm(median_nm: float, verdict: str) -> None:
    rng = np.random.default_rng(3)
    images = [
        image_of(median_nm * np.exp(0.2 * rng.normal(size=40)), np.zeros(40, int), number, 1.0)
        for number in range(8)
    ]
    found = analysed(images, counting.COUNT_ALL).findings.nanomaterial
    assert found is not None
    assert found.verdict == verdict
    assert 0.0 <= found.share.lower <= found.share.value <= found.share.upper <= 1.0
    assert (found.probability > 0.5) == (found.share.value > 0.5)


def test_without_a_pixel_size_there_is_no_verdict_in_nm() -> None:
    image = image_of(np.full(4, 50.0), np.zeros(4, int), 0, 1.0)
    bare = MeasuredImage("b", FRAME_PX, FRAME_PX, None, image.columns)
    found = pool([bare])
    assert found.unit == "px"
    assert found.findings.nanomaterial is None


def test_the_fits_choose_the_law_that_the_sample_was_drawn_from() -> None:
    rng = np.random.default_rng(1)
    lognormal = np.sort(80 * np.exp(0.5 * rng.normal(size=3000)))
    two = np.sort(np.concatenate([rng.normal(60, 3, 1500), rng.normal(120, 5, 1500)]))
    mass = np.ones(3000)
    best = fit_all(lognormal, mass, 3000.0)[0]
    assert "log" in best.family.lower() or "mixture" not in best.family.lower()
    assert fit_all(two, mass, 3000.0)[0].family != best.family


def test_bimodal_samples_are_told_from_unimodal_ones() -> None:
    rng = np.random.default_rng(2)
    one = [image_of(80 * np.exp(0.15 * rng.normal(size=300)), np.zeros(300, int), 0, 1.0)]
    sizes = np.concatenate([rng.normal(60, 3, 150), rng.normal(120, 5, 150)])
    two = [image_of(sizes, np.zeros(300, int), 0, 1.0)]
    single, double = (analysed(i, counting.COUNT_ALL).findings.bimodality for i in (one, two))
    assert single is not None
    assert double is not None
    assert double.p_value < 0.02 < single.p_value


def test_uncertainties_that_the_user_gives_add_in_squares() -> None:
    rng = np.random.default_rng(4)
    images = [image_of(80 * np.exp(0.1 * rng.normal(size=100)), np.zeros(100, int), 0, 1.0)]
    lines = (
        UncertaintyLine("pixel size", relative=0.03),
        UncertaintyLine("drift", absolute_nm=2.0),
    )
    plain = analysed(images, counting.COUNT_ALL).findings.uncertainty
    given = analysed(images, counting.COUNT_ALL, uncertainty=lines).findings.uncertainty
    assert plain is not None
    assert given is not None
    expected = np.sqrt(plain.combined**2 + (0.03 * plain.median) ** 2 + 2.0**2)
    assert given.combined == pytest.approx(expected)


def test_more_particles_are_asked_for_as_long_as_the_interval_is_too_wide() -> None:
    rng = np.random.default_rng(6)
    sizes = 80 * np.exp(0.5 * rng.normal(size=60))
    few = [image_of(sizes, np.zeros(60, int), 0, 1.0)]
    advice = analysed(few, counting.COUNT_ALL, target_precision=0.02).findings.advice
    assert not advice.stop
    assert advice.more_particles is not None
    assert advice.more_particles > 60
    assert "±2 %" in advice.text
    assert analysed(few, counting.COUNT_ALL, target_precision=0.5).findings.advice.stop


def test_the_number_for_a_mean_volume_is_that_of_the_standard() -> None:
    # ISO 13322-1:2004 by Masuda and Gotoh: GSD 1.6 and 5 % take some 6,100 particles.
    assert needed_for_mean_volume(1.6, 0.05, 0.95) == pytest.approx(6091, rel=0.01)


@pytest.mark.parametrize("sizes", [np.empty(0), np.array([50.0]), np.full(20, 50.0)])
def test_none_one_and_equal_particles_give_what_they_can(sizes: np.ndarray) -> None:
    found = pool([image_of(sizes, np.zeros(len(sizes), int), 0, 1.0)])
    assert found.counted == len(sizes)
    median = found.distributions["ecd"].figures["median"]
    assert np.isnan(median.value) if not len(sizes) else median.value == pytest.approx(50.0)
    assert not found.findings.advice.stop or len(sizes) == 20


def test_replicates_are_the_same_for_the_same_seed() -> None:
    values = np.linspace(10, 50, 30)
    classes = classify(values, np.ones(30), np.arange(30) // 10, 3)
    one, two, other = (bootstrap.resample(classes, 20, seed).masses for seed in (1, 1, 2))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)


def test_images_without_particles_do_not_pass_for_images_that_are_alike() -> None:
    sizes = np.random.default_rng(4).normal(60.0, 10.0, 50)
    inside = np.zeros(50, int)
    empty = [image_of(np.empty(0), np.empty(0, int), number, 1.0) for number in range(1, 8)]
    alone = pool([image_of(sizes, inside, 0, 1.0)])
    among_empty = pool([image_of(sizes, inside, 0, 1.0), *empty])
    median, expected = (e.distributions["ecd"].figures["median"] for e in (among_empty, alone))
    assert (median.lower, median.upper) == (expected.lower, expected.upper)
    assert median.lower < median.value < median.upper
    assert among_empty.findings.scheme == alone.findings.scheme == "particles"
    assert among_empty.findings.nanomaterial is not None
    assert among_empty.findings.nanomaterial.share == alone.findings.nanomaterial.share
    one = pool([image_of(sizes[:1], inside[:1], 0, 1.0), *empty])
    assert np.isnan(one.distributions["ecd"].figures["median"].lower)
    assert not one.findings.advice.stop


def test_one_value_far_away_leaves_every_model_comparable() -> None:
    sizes = np.append(np.random.default_rng(5).normal(20.0, 0.6, 2000), 2500.0)
    found = pool([image_of(sizes, np.zeros(2001, int), 0, 1.0)])
    assert len(found.findings.fits) >= 5
    assert all(np.isfinite(fit.bic) for fit in found.findings.fits)
    assert found.findings.fits[0].is_mixture


@settings(max_examples=25, deadline=None)
@given(st.floats(0.5, 500.0), st.floats(1.05, 3.0), st.integers(0, 1000))
def test_logarithms_of_densities_are_those_of_scipy(median: float, gsd: float, seed: int) -> None:
    x = np.sort(np.exp(np.random.default_rng(seed).normal(np.log(median), np.log(gsd), 60)))
    for fit in fit_all(x, np.ones(60), 60.0):
        values = dict(fit.parameters)
        if fit.family == "normal":
            known = stats.norm(values["mean"], values["stddev"]).pdf(x)
        elif fit.family == "lognormal":
            known = stats.lognorm(np.log(values["gsd"]), scale=values["median"]).pdf(x)
        elif fit.family == "weibull":
            known = stats.weibull_min(values["shape"], scale=values["scale"]).pdf(x)
        else:
            number = int(fit.family.rpartition("_")[2])
            known = sum(
                values[f"share_{k}"]
                * stats.lognorm(np.log(values[f"gsd_{k}"]), scale=values[f"median_{k}"]).pdf(x)
                for k in range(1, number + 1)
            )
        assert fit.density(x) == pytest.approx(known, rel=1e-6)
