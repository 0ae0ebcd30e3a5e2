# SPDX-License-Identifier: GPL-3.0-or-later
"""Tables, overlays, figures and the page of an analysis."""

import io
import json
import re
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from granulo_analyzer.domain import counting
from granulo_analyzer.domain.classes import quantiles
from granulo_analyzer.domain.ensemble import Ensemble, MeasuredImage, pool
from granulo_analyzer.domain.morphology import measure
from granulo_analyzer.domain.settings import AnalysisSettings
from granulo_analyzer.domain.tables import image_csv, merged_csv, read_image_csv, read_rows
from granulo_analyzer.report import figures, html, words
from granulo_analyzer.report.overlay import MAX_SIDE_PX, MIN_SIDE_PX, draw_overlay, encode_png
from granulo_analyzer.report.summary import summary_json

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))
from disc_images import image_of

PROVENANCE = html.Provenance(
    resource="analyses/an-1",
    created="2026-11-24",
    lineage=(html.LineageItem("labels", "<a>.tif", "sha256:00"),),
    producer={"version": "0.1.0", "git_revision": "", "packages": {"numpy": "1.26.4"}},
)


def scattered(seed: int, count: int = 40) -> np.ndarray:
    rng = np.random.default_rng(seed)
    labels = np.zeros((200, 260), np.uint16)
    y, x = np.mgrid[:200, :260]
    for label in range(1, count + 1):
        centre_x, centre_y, radius = rng.uniform(0, 260), rng.uniform(0, 200), rng.uniform(4, 12)
        inside = (x - centre_x) ** 2 + (y - centre_y) ** 2 < radius**2
        labels[inside & (labels == 0)] = label
    return labels


def measured(
    name: str, labels: np.ndarray, pixel_size_nm: tuple[float, float] | None
) -> MeasuredImage:
    height, width = labels.shape
    columns = measure(labels, pixel_size_nm=pixel_size_nm).columns
    return MeasuredImage(name, width, height, pixel_size_nm, columns)


def page_of(ensemble: Ensemble, previews: list[bytes]) -> str:
    return html.render_report(ensemble, PROVENANCE, previews)


def test_a_table_survives_its_csv_to_eight_digits() -> None:
    table = measure(scattered(1), pixel_size_nm=(1.7, 1.7))
    read = read_image_csv(image_csv(table))
    assert list(read) == list(table.columns)
    for name, values in table.columns.items():
        assert read[name].dtype == values.dtype
        assert read[name] == pytest.approx(values, rel=1e-7, nan_ok=True), name
    empty = measure(np.zeros((4, 4), np.uint8))
    assert read_image_csv(image_csv(empty))["touches_border"].dtype == np.bool_


def test_joined_tables_leave_blank_what_an_image_does_not_have() -> None:
    known = measure(scattered(1, 3), pixel_size_nm=(2.0, 2.0))
    unknown = measure(scattered(2, 2), grey=np.zeros((200, 260), np.uint8))
    rows = list(read_rows(merged_csv([("a", image_csv(known)), ("b", image_csv(unknown))])))
    assert [row["particle"] for row in rows] == ["1", "2", "3", "4", "5"]
    assert list(rows[0])[:3] == ["particle", "image", "label"]
    assert float(rows[0]["area_nm2"]) == pytest.approx(4 * float(rows[0]["area_px"]))
    assert (rows[0]["mean_grey"], rows[3]["area_nm2"], rows[3]["mean_grey"]) == ("", "", "0")


def test_lengths_of_a_set_are_pooled_in_nm_only_where_all_are_known() -> None:
    a, b = scattered(1), scattered(2)
    both = pool([measured("a", a, (2.0, 2.0)), measured("b", b, (4.0, 4.0))])
    mixed = pool([measured("a", a, (2.0, 2.0)), measured("b", b, None)])
    assert (both.unit, mixed.unit) == ("nm", "px")
    assert both.counted == sum(image.counted for image in both.images) == len(both.values["ecd"])
    assert both.counted < both.listed
    of_b = both.values_of("ecd", 1)
    order = np.argsort(of_b)
    median = quantiles(of_b[order], both.weights_of(1)[order], (0.5,))
    assert median == both.images[1].distributions["ecd"].median
    assert "Only 1 of 2 images have a pixel size" in page_of(mixed, [])


def test_an_overlay_colours_counted_particles_and_greys_those_at_the_frame() -> None:
    labels = np.zeros((300, 400), np.uint16)
    labels[100:200, 100:200] = 5
    labels[0:60, 0:60] = 6
    picture = np.asarray(draw_overlay(labels, measure(labels), np.full((300, 400), 80, np.uint8)))
    scale = picture.shape[0] / 300
    counted = picture[int(120 * scale), int(120 * scale)].astype(int)
    at_frame = picture[int(20 * scale), int(20 * scale)].astype(int)
    assert np.ptp(counted) > 30
    assert np.ptp(at_frame) == 0
    middle = picture[int(140 * scale) : int(160 * scale), int(140 * scale) : int(160 * scale)]
    assert (middle == 255).all(axis=2).any(), "the number"


def test_numbers_stand_on_their_own_particle() -> None:
    labels = np.zeros((1000, 1000), np.uint16)
    labels[200:800, 200:800] = 1
    labels[300:760, 240:760] = 0
    labels[400:600, 400:600] = 2
    picture = np.asarray(draw_overlay(labels, measure(labels), np.full(labels.shape, 80, np.uint8)))
    white = (picture == 255).all(axis=2)
    assert white[labels == 1].any()
    assert white[labels == 2].any()
    assert not white[labels == 0].any()


@pytest.mark.parametrize("shape", [(60, 90), (500, 3000)])
def test_overlays_are_neither_tiny_nor_huge(shape: tuple[int, int]) -> None:
    labels = np.zeros(shape, np.uint16)
    picture = draw_overlay(labels, measure(labels))
    assert MIN_SIDE_PX <= max(picture.size) <= MAX_SIDE_PX


def test_overlays_show_oblong_pixels_in_true_proportion_with_a_scale_bar() -> None:
    labels = np.zeros((1000, 500), np.uint16)
    plain = draw_overlay(labels, measure(labels))
    table = measure(labels, pixel_size_nm=(2.0, 1.0))
    picture = draw_overlay(labels, table)
    assert plain.size == (500, 1000)
    assert picture.width == 1000
    assert picture.height > 1000
    strip = np.asarray(picture)[1000:]
    bar = (strip[strip.shape[0] // 2] < 50).all(axis=1)
    assert bar[:200].all(), "200 nm at 1 nm a pixel"
    assert not bar[202]


def test_pictures_are_the_same_in_every_run() -> None:
    labels = scattered(3)
    ensemble = pool([measured("a", labels, None)])
    table = measure(labels)
    assert encode_png(draw_overlay(labels, table)) == encode_png(draw_overlay(labels, table))
    first, second = (figures.png_bytes(figures.histogram_figure(ensemble)) for _ in range(2))
    assert first == second
    assert page_of(ensemble, []) == page_of(ensemble, [])


def test_a_page_is_well_formed_loads_nothing_and_escapes_names() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (30, 20)).save(buffer, "JPEG")
    ensemble = pool([measured(name, scattered(4), (3.0, 3.0)) for name in ("<b>&", "b", "c")])
    page = page_of(ensemble, [buffer.getvalue()] * 2)
    assert "<b>&" not in page
    assert "&lt;b&gt;&amp;" in page
    assert "1 more image " in page
    assert not re.findall(r'(?:src|href)="(?!data:|#)[^"]', page), "nothing from outside"
    ids = re.findall(r'\bid="([^"]+)"', page)
    shared = {name for name in ids if ids.count(name) > 1}
    used = set(re.findall(r'(?:url\(#|href="#)([^")]+)', page))
    assert not [name for name in shared & used if not _same_everywhere(page, name)]
    for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        ET.fromstring(svg)


def _same_everywhere(page: str, name: str) -> bool:
    """Glyphs may be defined twice, as long as both definitions draw the same."""
    return len(set(re.findall(rf'<path id="{re.escape(name)}"[^>]*>', page))) == 1


def few(count: int) -> np.ndarray:
    labels = np.zeros((100, 100), np.uint8)
    for number in range(count):
        labels[10 : 20 + number, 10 + 30 * number : 25 + 30 * number] = number + 1
    return labels


@pytest.mark.parametrize("pixel_size_nm", [None, (2.0, 2.0)])
@pytest.mark.parametrize("count", [0, 1, 2])
def test_pages_of_few_particles_say_what_is_not_known(
    count: int, pixel_size_nm: tuple[float, float] | None
) -> None:
    page = page_of(pool([measured("few", few(count), pixel_size_nm)]), [])
    text = re.sub(r"<svg.*?</svg>|<style>.*?</style>|<[^>]+>", " ", page, flags=re.DOTALL)
    assert not re.search(r"\b(nan|None|inf)\b", text)
    if pixel_size_nm is None:
        assert "The pixel size is unknown." in text
    if not count:
        assert "No particle was found in 1 image." in text
    judged = count > 0 and pixel_size_nm is not None
    assert ("Not judged" in text) is not judged


def discs(*diameters_px: float, size_nm: float = 1.0, at_frame: int = 0) -> MeasuredImage:
    edges = np.arange(len(diameters_px)) < at_frame
    return image_of(np.array(diameters_px), edges.astype(int), 0, size_nm)


def text_of(*images: MeasuredImage, rule: counting.CountingRule = counting.MILES_LANTUEJOUL) -> str:
    page = page_of(pool(list(images), AnalysisSettings(rule=rule)), [])
    return re.sub(r"\s+", " ", re.sub(r"<svg.*?</svg>|<[^>]+>", " ", page, flags=re.DOTALL))


def test_tenths_are_stated_of_samples_that_have_them() -> None:
    few_text, many_text = text_of(discs(10.0, 30.0)), text_of(discs(*range(20, 60)))
    assert "ten per cent of the particles are below" not in few_text
    assert re.search(r"number – – 20\.34 10\.00 to 30\.00 – –", few_text)
    assert "ten per cent of the particles are below" in many_text


def test_what_is_no_verdict_has_its_reason() -> None:
    assert "above 100 µm and need not be counted" in text_of(discs(*[150.0] * 30, size_nm=1000.0))
    assert "No particle was counted." in text_of(discs(40.0, at_frame=1))
    assert "1 particle in 1 image, of which none was counted: 1 at the frame." in text_of(
        discs(40.0, at_frame=1)
    )


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        (counting.MILES_LANTUEJOUL, "weights of the counting rule make up for them"),
        (counting.EXCLUDE_BORDER, "missing from the distribution more often"),
    ],
)
def test_the_note_on_the_frame_is_that_of_the_rule(rule: counting.CountingRule, says: str) -> None:
    text = text_of(discs(*range(20, 40), at_frame=10), rule=rule)
    assert "50 % of the particles are left out at the frame." in text
    assert says in text


@pytest.mark.parametrize("diameters_px", [(40.0,), (40.0,) * 12])
def test_equal_sizes_are_drawn_in_one_class_that_can_be_read(
    diameters_px: tuple[float, ...],
) -> None:
    ensemble = pool([discs(*diameters_px)])
    assert ensemble.findings.size is not None
    assert len(ensemble.findings.size.edges) == 2
    assert max(ensemble.findings.size.log_density["q0"]) == pytest.approx(10.0)
    figure = figures.curves_figure(ensemble)
    figures.png_bytes(figure)  # ticks are made when it is drawn
    for panel in figure.axes:
        shown = [label.get_text() for label in panel.get_xticklabels() if label.get_text()]
        assert 2 <= len(set(shown)) == len(shown)


def test_a_model_out_of_reach_is_no_infinity() -> None:
    sizes = np.append(np.random.default_rng(5).normal(20.0, 0.6, 2000), 2500.0)
    text = text_of(discs(*sizes))
    assert not re.search(r"\binf\b|\bnan\b", text)
    assert "above 10 000" in text


def test_a_page_states_verdict_advice_budget_and_fits() -> None:
    page = page_of(pool([measured("a", scattered(6), (3.0, 3.0))]), [])
    for wanted in ("Not a nanomaterial", "Nanomaterial", "Undecided"):
        if f"<b>{wanted}</b>" in page:
            break
    else:
        pytest.fail("no verdict")
    for wanted in ("more field", "counting rule", "Silverman", "touch another", "seed 0"):
        assert wanted in page, wanted
    for cell in ("expanded", "log-normal", "Weibull", "volume", "combined"):
        assert re.search(rf"<tr[^>]*><td>{cell}[^<]*</td>", page), cell
    assert re.search(r"<td>volume-weighted mean D\[4,3\] \(nm\)</td><td>[\d.]+</td>", page)


def test_pages_of_many_images_point_to_the_rest() -> None:
    images = [measured(f"image {number}", few(1), None) for number in range(html.MAX_ROWS + 5)]
    page = page_of(pool(images), [])
    assert f"The first {html.MAX_ROWS} of {html.MAX_ROWS + 5} images" in page
    assert page.count("image 7<") == 1
    assert f"image {html.MAX_ROWS + 2}<" not in page


def test_the_summary_is_strict_json_and_tells_the_rule_and_the_seed() -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    one = np.zeros((50, 50), np.uint8)
    one[10:20, 10:20] = 1
    data = summary_json(pool([measured("one", one, None)]), PROVENANCE)
    content = json.loads(data, parse_constant=refuse)
    counts = {"listed": 1, "counted": 1, "at_frame": 0, "unsure": 0, "near_frame": 0}
    assert content["particles"] == counts
    assert content["quantities"]["ecd"]["stddev"] is None
    assert content["counting_rule"]["name"] == "miles_lantuejoul"
    assert content["bootstrap"]["seed"] == 0
    assert content["images"][0]["coverage"] == pytest.approx(0.04)


@pytest.mark.parametrize(
    ("value", "text"),
    [(1234.56, "1235"), (0.12345, "0.1235"), (98.76, "98.76"), (float("nan"), "–"), (0, "0"),
     (54321.9, "54322"), (3.2e8, "3.200e+08")],
)  # fmt: skip
def test_numbers_are_written_with_four_significant_digits(value: float, text: str) -> None:
    assert words.significant(value) == text
