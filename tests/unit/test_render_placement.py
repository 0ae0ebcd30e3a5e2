# SPDX-License-Identifier: GPL-3.0-or-later
"""Placement: patterns, contacts without interpenetration, coverage, and an end in any case."""

import time
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pytest
from scipy.spatial import ConvexHull, cKDTree

from granulo_render.domain.contact import Body, Ground, Spheres, make_body, make_sphere
from granulo_render.domain.height_map import HeightMap, cell_for
from granulo_render.domain.patterns import fill
from granulo_render.domain.placement import Filling, Layout
from granulo_render.domain.recipe import (
    LogNormal,
    Normal,
    ParticleClass,
    Pattern,
    Polyhedron,
    Rod,
    Sphere,
    Uniform,
    Value,
    Wire,
)
from granulo_render.domain.shapes import ParticleSource, random_pose

SPHERES = (ParticleClass(Sphere(), Normal(100, 3)),)
EQUAL = (ParticleClass(Sphere(), Value(100)),)
STONES = (ParticleClass(Polyhedron(roughness=Value(0)), LogNormal(100, 0.2)),)
RODS = (ParticleClass(Rod(), Normal(45, 3)),)
WIRES = (ParticleClass(Wire(Value(50_000), Uniform(0, 12)), Normal(45, 2)),)


def _scene(
    classes: Sequence[ParticleClass],
    *,
    pattern: Pattern = Pattern.AGGLOMERATES,
    target: int = 20_000,
    coverage: float | None = None,
    stacking: float = 0.0,
    overlap: float = 0.0,
    image_nm: float = 1500.0,
    cluster: int = 8,
    margin_nm: float = 150.0,
    seed: int = 0,
) -> Filling:
    rng = np.random.default_rng(seed)
    source = ParticleSource(classes, {}, rng)
    exact = all(isinstance(kind.shape, Sphere) for kind in classes)

    def next_body() -> Body:
        kind = int(rng.integers(len(classes)))
        particle = source.draw(kind, rng)
        template = source.templates[particle.template]
        if exact:
            return make_sphere(kind, particle, template, np.eye(3))
        pose = random_pose(template, particle.scale_nm, rng, lying=True)
        return make_body(kind, particle, template, pose)

    typical = float(np.median([next_body().half_nm for _ in range(20)]))
    side = image_nm + 2 * margin_nm
    room = side + 6 * margin_nm
    ground: Ground = (
        Spheres(image_nm)
        if exact
        else HeightMap(room, image_nm, max(cell_for(typical), room / 6000))
    )
    layout = Layout(side, image_nm, target, coverage, pattern, stacking, overlap, typical)
    filling = Filling(layout, ground, next_body, lambda: cluster, rng)
    fill(filling)
    return filling


def _table(filling: Filling) -> np.ndarray:
    """Columns x, y, z, radius of spheres."""
    return np.array([(p.x_nm, p.y_nm, p.z_nm, p.body.radius_nm) for p in filling.placed])


def _gaps(filling: Filling) -> np.ndarray:
    """Gap of every two spheres' surfaces over the smaller radius (N, N)."""
    table = _table(filling)
    centre, radius = table[:, :3], table[:, 3]
    apart = np.linalg.norm(centre[:, None] - centre[None], axis=2)
    smaller = np.minimum(radius[:, None], radius[None])
    gaps = (apart - radius[:, None] - radius[None]) / smaller
    np.fill_diagonal(gaps, np.inf)
    return gaps


def _deepest(filling: Filling) -> float:
    """Deepest point of a convex body inside of another, over the smaller one's radius."""
    hulls, points, at_of = [], [], []
    for p in filling.placed:
        at = np.array([p.x_nm, p.y_nm, p.z_nm])
        points.append(p.body.vertices + at)
        hulls.append(ConvexHull(points[-1]).equations)
        at_of.append(at)
    deepest = 0.0
    for (i, one), (j, other) in combinations(enumerate(filling.placed), 2):
        apart = np.hypot(one.x_nm - other.x_nm, one.y_nm - other.y_nm)
        if apart > one.body.reach_nm + other.body.reach_nm:
            continue
        smaller = min(one.body.radius_nm, other.body.radius_nm)
        for cloud, planes in ((points[i], hulls[j]), (points[j], hulls[i])):
            other_at = at_of[j] if planes is hulls[j] else at_of[i]
            reach = other.body.reach_nm if planes is hulls[j] else one.body.reach_nm
            near = cloud[np.linalg.norm(cloud - other_at, axis=1) < reach]
            inside = -(near @ planes[:, :3].T + planes[:, 3]).max(axis=1)
            deepest = max(deepest, float(inside.max(initial=0)) / smaller)
    return deepest


def _lie(filling: Filling) -> np.ndarray:
    return np.array([p.z_nm < p.body.ground_nm + 1e-9 for p in filling.placed])


@pytest.mark.parametrize("pattern", list(Pattern))
@pytest.mark.parametrize("stacking", [0.0, 0.5])
def test_spheres_cut_into_each_other_by_the_overlap_at_most(
    pattern: Pattern, stacking: float
) -> None:
    for overlap in (0.0, 0.3):
        filling = _scene(
            SPHERES,
            pattern=pattern,
            coverage=0.35,
            stacking=stacking,
            overlap=overlap,
            image_nm=1100.0,
            seed=2,
        )
        assert len(filling.placed) > 40
        assert _gaps(filling).min() >= -overlap - 0.01


@pytest.mark.parametrize("classes", [STONES, RODS, (*STONES, *RODS, *SPHERES)])
@pytest.mark.parametrize("pattern", list(Pattern))
def test_other_shapes_cut_into_each_other_by_the_overlap_and_a_twentieth_at_most(
    classes: tuple[ParticleClass, ...], pattern: Pattern
) -> None:
    filling = _scene(
        classes, pattern=pattern, coverage=0.3, stacking=0.2, overlap=0.1, image_nm=500.0
    )
    assert len(filling.placed) > 6
    assert _deepest(filling) <= 0.15


@pytest.mark.parametrize("pattern", list(Pattern))
def test_without_stacking_everything_lies_on_the_substrate(pattern: Pattern) -> None:
    for classes in (SPHERES, STONES):
        filling = _scene(classes, pattern=pattern, coverage=0.4, image_nm=800.0)
        assert len(filling.placed) > 10
        assert _lie(filling).all()


@pytest.mark.parametrize("pattern", list(Pattern))
def test_stacking_puts_particles_on_others_in_every_pattern(pattern: Pattern) -> None:
    filling = _scene(SPHERES, pattern=pattern, coverage=0.4, stacking=0.6, image_nm=1100.0)
    raised = ~_lie(filling)
    assert raised.mean() > 0.15
    assert _gaps(filling)[raised].min(axis=1).max() < 0.01  # none hangs in the air


def test_random_particles_touch_no_others() -> None:
    assert _gaps(_scene(SPHERES, pattern=Pattern.RANDOM, coverage=0.2)).min() > 0.001


def test_agglomerates_touch() -> None:
    filling = _scene(SPHERES, coverage=0.2, cluster=10)
    assert (_gaps(filling).min(axis=1) < 0.005).mean() > 0.9


def test_every_link_of_a_chain_touches_the_one_before() -> None:
    filling = _scene(SPHERES, pattern=Pattern.CHAINS, coverage=0.1, cluster=9)
    cluster = np.array([p.cluster for p in filling.placed])
    gaps = _gaps(filling)
    links = [(i, i + 1) for i in range(len(cluster) - 1) if cluster[i] == cluster[i + 1]]
    assert len(links) > 20
    assert max(gaps[i, j] for i, j in links) < 0.005


def test_chains_are_longer_than_agglomerates_are_wide() -> None:
    def spread(pattern: Pattern) -> float:
        filling = _scene(SPHERES, pattern=pattern, coverage=0.12, cluster=12)
        table, cluster = _table(filling), np.array([p.cluster for p in filling.placed])
        groups = [table[cluster == k, :2] for k in np.unique(cluster)]
        return float(np.median([np.ptp(g, axis=0).max() for g in groups if len(g) > 8]))

    assert spread(Pattern.CHAINS) > 1.1 * spread(Pattern.AGGLOMERATES)


@pytest.mark.parametrize("pattern", [Pattern.AGGLOMERATES, Pattern.CHAINS])
def test_rods_in_clusters_touch_another(pattern: Pattern) -> None:
    filling = _scene(RODS, pattern=pattern, target=36, cluster=9)
    outlines = []
    for p in filling.placed:
        flat = p.body.vertices[:, :2]
        rim = flat[ConvexHull(flat).vertices] + (p.x_nm, p.y_nm)
        edges = np.roll(rim, -1, axis=0) - rim
        count = np.ceil(np.linalg.norm(edges, axis=1) / 2).astype(int)
        along = np.concatenate([np.arange(n) / n for n in count])
        outlines.append(np.repeat(rim, count, axis=0) + along[:, None] * np.repeat(edges, count, 0))
    trees = [cKDTree(outline) for outline in outlines]
    apart = [
        min(tree.query(one)[0].min() for tree in trees if tree.data[0, 0] != one[0, 0])
        for one in outlines
    ]
    assert len(apart) > 15
    assert np.mean(np.array(apart) < 2 * filling.ground.grid_nm) > 0.75


def test_rods_in_a_row_lie_side_by_side() -> None:
    filling = _scene(RODS, pattern=Pattern.ROWS, coverage=0.2, cluster=8)
    angle = np.array(
        [np.arctan2(p.body.rotation[1, 0], p.body.rotation[0, 0]) for p in filling.placed]
    )
    cluster = np.array([p.cluster for p in filling.placed])
    turned = np.array(
        [angle[i + 1] - angle[i] for i in range(len(angle) - 1) if cluster[i] == cluster[i + 1]]
    )
    assert len(turned) > 20
    assert np.median(np.abs(np.sin(turned))) < 0.15


def test_a_raft_of_equal_spheres_is_hexagonal() -> None:
    filling = _scene(EQUAL, pattern=Pattern.RAFTS, coverage=0.5)
    neighbours = (_gaps(filling) < 0.25).sum(axis=1)
    assert (neighbours == 6).mean() > 0.2
    assert neighbours.max() <= 6


def test_a_sheet_of_equal_spheres_covers_seven_tenths_within() -> None:
    filling = _scene(EQUAL, pattern=Pattern.SHEETS, target=200, image_nm=2500.0)
    table = _table(filling)
    cluster = np.array([p.cluster for p in filling.placed])
    sheet = table[cluster == np.bincount(cluster).argmax(), :2]
    assert len(sheet) > 60
    # Within the sheet: not closer to its rim than a diameter and a half.
    hull = ConvexHull(sheet).equations
    random = np.random.default_rng(0).uniform(sheet.min(axis=0), sheet.max(axis=0), (20_000, 2))
    inner = random[(random @ hull[:, :2].T + hull[:, 2]).max(axis=1) < -150]
    apart = np.linalg.norm(inner[:, None] - table[None, :, :2], axis=2).min(axis=1)
    assert len(inner) > 500
    assert (apart < 50).mean() >= 0.7


@pytest.mark.parametrize(
    ("pattern", "stacking", "wanted"),
    [
        (Pattern.RANDOM, 0.0, 0.05),
        (Pattern.RANDOM, 0.0, 0.7),
        (Pattern.AGGLOMERATES, 0.0, 0.4),
        (Pattern.AGGLOMERATES, 0.0, 0.7),
        (Pattern.CHAINS, 0.0, 0.7),
        (Pattern.SHEETS, 0.0, 0.7),
        (Pattern.SHEETS, 0.5, 0.9),
        (Pattern.AGGLOMERATES, 0.5, 0.9),
    ],
)
def test_the_coverage_asked_for_is_reached(
    pattern: Pattern, stacking: float, wanted: float
) -> None:
    filling = _scene(SPHERES, pattern=pattern, stacking=stacking, coverage=wanted, image_nm=1000.0)
    table = _table(filling)
    middle = (np.arange(300) + 0.5) / 300 * 1000 - 500
    seen = np.zeros((300, 300), dtype=bool)
    for x, y, _, radius in table:
        seen |= (middle - x) ** 2 + (middle[:, None] - y) ** 2 < radius**2
    assert seen.mean() == pytest.approx(wanted, abs=0.03)
    assert filling.coverage == pytest.approx(seen.mean(), abs=0.005)


def test_coverage_counts_other_shapes_as_well() -> None:
    filling = _scene(RODS, coverage=0.25, image_nm=1200.0)
    area = sum(ConvexHull(p.body.vertices[:, :2]).volume for p in filling.placed)
    assert filling.coverage == pytest.approx(0.25, abs=0.03)
    assert area / filling.layout.side_nm**2 == pytest.approx(0.25, abs=0.06)


def test_a_number_is_met() -> None:
    for classes in (SPHERES, STONES):
        filling = _scene(classes, target=60)
        assert (len(filling.placed), filling.unplaced) == (60, 0)


@pytest.mark.parametrize(
    "case",
    [
        {"classes": RODS, "coverage": 0.95, "image_nm": 800.0},
        {"classes": SPHERES, "target": 100_000},
        {"classes": (ParticleClass(Sphere(), Value(10_000)),), "target": 50, "image_nm": 1000.0},
        {
            "classes": (ParticleClass(Polyhedron(), Value(10_000)),),
            "target": 50,
            "image_nm": 1000.0,
        },
    ],
)
def test_the_impossible_ends_and_is_counted(case: dict[str, object]) -> None:
    began = time.process_time()
    filling = _scene(**case)  # type: ignore[arg-type]
    assert time.process_time() - began < 4.0  # it takes less than 2 on a machine of its own
    assert filling.unplaced > 0
    if filling.layout.coverage is None:
        assert len(filling.placed) + filling.unplaced == filling.layout.target


def test_long_wires_lie_across_each_other() -> None:
    filling = _scene(WIRES, pattern=Pattern.RANDOM, target=10, stacking=1.0, cluster=1)
    heights = np.array([p.z_nm - p.body.ground_nm for p in filling.placed])
    assert len(heights) == 10
    assert (heights > 30).sum() >= 3  # a thickness of 45 nm, less the sway of the wire below
    assert heights.max() < 45 * 10


def test_wires_do_not_lie_across_each_other_without_stacking() -> None:
    filling = _scene(WIRES, pattern=Pattern.RANDOM, target=10, cluster=1)
    assert _lie(filling).all() or max(p.z_nm / p.body.ground_nm for p in filling.placed) < 1.2
    assert filling.unplaced > 0


def test_a_scene_follows_from_its_random_numbers() -> None:
    one, again, other = (
        _scene((*STONES, *RODS), target=12, stacking=0.3, seed=seed) for seed in (5, 5, 6)
    )

    def places(filling: Filling) -> list[tuple[float, float, float]]:
        return [(p.x_nm, p.y_nm, p.z_nm) for p in filling.placed]

    assert places(one) == places(again) != places(other)


def test_a_body_rests_on_another_within_half_a_cell() -> None:
    source = ParticleSource(EQUAL, {}, np.random.default_rng(0))
    particle = source.draw(0, np.random.default_rng(0))
    template = source.templates[particle.template]
    ground = HeightMap(1000.0, 500.0, cell_for(50.0))
    one, two = (make_body(0, particle, template, np.eye(3)) for _ in range(2))
    x, y = ground.add(one, 3.0, -7.0, 50.0)
    for away in (0.0, 20.0, 50.0, 80.0):
        rest = float(ground.rest_nm(two, np.array([x + away]), np.array([y]))[0])
        at = round(away / cell_for(50.0)) * cell_for(50.0)
        exact = 50 + np.sqrt(100.0**2 - at**2)
        assert rest == pytest.approx(exact, abs=0.06 * 50)


def test_what_reaches_beyond_the_map_lies_on_nothing_there() -> None:
    rng = np.random.default_rng(0)
    source = ParticleSource(WIRES, {}, rng)
    particle = source.draw(0, rng)
    template = source.templates[particle.template]
    wire = make_body(0, particle, template, np.eye(3))
    ground = HeightMap(1000.0, 500.0, 4.0)
    before = ground.rest_nm(wire, np.array([0.0]), np.array([0.0]))
    ground.add(wire, 0.0, 0.0, float(before[0]))
    assert before[0] == pytest.approx(wire.ground_nm, rel=1e-6)
    beside = ground.rest_nm(wire, np.array([0.0]), np.array([495.0]))
    across = ground.rest_nm(wire, np.array([0.0]), np.array([0.0]))
    assert across[0] > 1.5 * wire.ground_nm
    assert beside[0] <= across[0]
