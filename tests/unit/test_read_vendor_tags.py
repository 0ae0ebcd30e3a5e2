# SPDX-License-Identifier: GPL-3.0-or-later
"""Pixel sizes as each vendor writes them: the image's, never the screen's."""

import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from granulo_core.imaging.read import read_micrograph
from granulo_core.imaging.reading.lengths import from_resolution, length_nm, plausible, quantity_nm

sys.path.insert(0, str(Path(__file__).parent))

import image_files as files

ASCII, SHORT, DOUBLE, BYTE, UNDEFINED = 2, 3, 12, 1, 7


def with_tag(code: int, kind: int, value: Any, count: int = 0, **options: Any) -> bytes:
    return files.tiff(files.grey(), extratags=[(code, kind, count, value, True)], **options)


def told(data: bytes | Path) -> tuple[tuple[float, float] | None, str]:
    found = read_micrograph(data)
    np.testing.assert_array_equal(found.pixels, files.grey())
    return found.pixel_size_nm, found.pixel_size_source


FEI = "[User]\r\nDate=1/1/2026\r\n[{section}]\r\nPixelWidth=2e-009\r\nPixelHeight=3e-009\r\n"
TITAN = """<?xml version="1.0"?><Metadata xmlns="http://example.org/a"><BinaryResult>
<PixelSize><X unit="m">5e-10</X><Y unit="m">6e-10</Y></PixelSize></BinaryResult></Metadata>"""
JEOL_XML = """<TemReporter><Eos><EosMode>eosTEM</EosMode></Eos><ImageFormingSystem>
<ModeString>{mode}</ModeString><SelectorValue>50000</SelectorValue></ImageFormingSystem>
</TemReporter>"""
TESCAN = (
    "[MAIN]\r\nDevice=MIRA3\r\nPixelSizeX=4.0e-009\r\nPixelSizeY=5.0e-009\r\n[SEM]\r\nHV=5000\r\n"
)


@pytest.mark.parametrize("section", ["Scan", "EScan", "IScan"])
def test_fei(section: str) -> None:
    data = with_tag(34682, ASCII, FEI.format(section=section))
    assert told(data) == (pytest.approx((2.0, 3.0)), "FEI tag")


def test_thermo_fisher_xml() -> None:
    for value in (TITAN, TITAN.encode("utf-16")):
        kind = ASCII if isinstance(value, str) else BYTE
        data = with_tag(34683, kind, value, 0 if kind == ASCII else len(value))
        assert told(data) == (pytest.approx((0.5, 0.6)), "Thermo Fisher XML")


def test_tescan_tag() -> None:
    value = b"\x01\x00\x07\xff" + bytes(60) + TESCAN.encode()
    data = with_tag(50431, BYTE, value, len(value))
    assert told(data) == (pytest.approx((4.0, 5.0)), "TESCAN tag")


def test_gatan_export() -> None:
    tags = [(65003, ASCII, 0, "nm", True), (65004, ASCII, 0, "nm", True),
            (65009, DOUBLE, 1, 0.7, True), (65010, DOUBLE, 1, 0.8, True)]  # fmt: skip
    assert told(files.tiff(files.grey(), extratags=tags)) == (
        pytest.approx((0.7, 0.8)), "Gatan tags",
    )  # fmt: skip


@pytest.mark.parametrize(("mode", "expected"), [("MAG", (4.0, 4.0)), ("DIFF", None)])
def test_jeol_tem(mode: str, expected: tuple[float, float] | None) -> None:
    # 50 pixels per centimetre, 0.2 mm on the screen, at 50,000 times.
    data = files.tiff(
        files.grey(), description=JEOL_XML.format(mode=mode), resolution=(50, 50),
        resolutionunit="CENTIMETER", metadata=None, extratags=[(271, ASCII, 0, "JEOL Ltd.", True)],
    )  # fmt: skip
    size, source = told(data)
    assert size == (pytest.approx(expected) if expected else None)
    assert source == ("JEOL XML" if expected else "")


def test_sis() -> None:
    # The tag is a table that leads to a block of general data elsewhere in the file.
    def file(block_at: int) -> bytes:
        table = struct.pack("<4s6x5h6x32sH", b"SIS0", 1, 1, 1, 1, 120, b"sample", 1)
        table += struct.pack("<hhI", 1, 1, block_at)
        return with_tag(33560, UNDEFINED, table, len(table))

    block = struct.pack("<10xhdd8xd2x34s32s", -9, 2.0, 3.0, 50_000.0, b"camera", b"SEM")
    block += bytes(112 - len(block))
    data = file(len(file(0))) + block
    assert told(data) == (pytest.approx((2.0, 3.0)), "SIS tag")


def test_tvips() -> None:
    first = np.zeros((), np.dtype(tifffile.TIFF.TVIPS_HEADER_V1).newbyteorder("<"))
    second = np.zeros((), np.dtype(tifffile.TIFF.TVIPS_HEADER_V2).newbyteorder("<"))
    first["Version"] = 2
    second["Magic"], second["PixelSizeX"], second["PixelSizeY"] = 0xAAAAAAAA, 0.5, 0.75
    value = first.tobytes() + second.tobytes()
    assert told(with_tag(37706, UNDEFINED, value, len(value))) == ((0.5, 0.75), "TVIPS tag")


def test_jeol_notes_beside_the_image(tmp_path: Path) -> None:
    for name in ("sample.tif", "sample.bmp"):
        path = tmp_path / name
        path.write_bytes(
            files.tiff(files.grey()) if name.endswith("tif") else files.picture(files.grey(), "BMP")
        )
    notes = "$SEM_DATA_VERSION 1\r\n$CM_MAG 50000\r\n$$SM_MICRON_BAR 80\r\n$$SM_MICRON_MARKER 200nm"
    (tmp_path / "sample.txt").write_text(notes)
    for name in ("sample.tif", "sample.bmp"):
        assert told(tmp_path / name) == (pytest.approx((2.5, 2.5)), "JEOL notes in sample.txt")
    assert told((tmp_path / "sample.tif").read_bytes()) == (None, "")


@pytest.mark.parametrize(("scanned", "expected"), [("64x48", 2.5), ("128x96", 5.0)])
def test_hitachi_notes_count_for_the_size_of_the_scan(
    scanned: str, expected: float, tmp_path: Path
) -> None:
    path = tmp_path / "sample.tif"
    path.write_bytes(files.tiff(files.grey()))
    notes = f"[SemImageFile]\r\nInstructName=SU8000\r\nDataSize={scanned}\r\nPixelSize=2.5\r\n"
    for encoding in ("utf-8", "utf-16"):
        (tmp_path / "sample.txt").write_bytes(notes.encode(encoding))
        size, source = told(path)
        assert (size, source) == ((expected, expected), "Hitachi notes in sample.txt")


def test_tescan_notes_beside_the_image(tmp_path: Path) -> None:
    path = tmp_path / "sample.png"
    path.write_bytes(files.picture(files.grey(), "PNG"))
    (tmp_path / "sample-png.hdr").write_text(TESCAN)
    assert told(path) == (pytest.approx((4.0, 5.0)), "TESCAN notes in sample-png.hdr")


def test_other_texts_beside_an_image_say_nothing(tmp_path: Path) -> None:
    path = tmp_path / "sample.tif"
    path.write_bytes(files.tiff(files.grey()))
    for text in ("", "PixelSize=2.5", "$$SM_MICRON_BAR 0\n$$SM_MICRON_MARKER 1um", "x" * (2 << 20)):
        (tmp_path / "sample.txt").write_text(text)
        assert told(path) == (None, "")


@pytest.mark.parametrize(
    ("resolution", "unit", "expected"),
    [((72, 72), "INCH", None), ((96, 96), "INCH", None), ((1200, 1200), "INCH", None),
     ((28.35, 28.35), "CENTIMETER", None), ((5e6, 4e6), "CENTIMETER", (2.0, 2.5)),
     ((25.4e6, 25.4e6), "INCH", (1.0, 1.0)), ((5e6, 5e6), "NONE", None)],
)  # fmt: skip
def test_resolution_tags_are_believed_only_where_no_screen_or_printer_could_have_them(
    resolution: tuple[float, float], unit: str, expected: tuple[float, float] | None
) -> None:
    data = files.tiff(files.grey(), resolution=resolution, resolutionunit=unit)
    size, source = told(data)
    assert size == (pytest.approx(expected) if expected else None)
    assert source == ("resolution tags" if expected else "")


@pytest.mark.parametrize(("dpi", "expected"), [(96, None), (12.7e6, (2.0, 2.0))])
def test_phys_of_a_png_is_ignored_unless_it_is_plainly_microscopic(
    dpi: float, expected: tuple[float, float] | None
) -> None:
    size, source = told(files.picture(files.grey(), "PNG", dpi=(dpi, dpi)))
    assert size == (pytest.approx(expected, rel=1e-6) if expected else None)
    assert source == ("PNG's pHYs" if expected else "")


@pytest.mark.parametrize("code", [33471, 33560, 34118, 34680, 34682, 34683, 37706, 50431, 65009])
@settings(max_examples=8, deadline=None)
@given(value=st.binary(min_size=8, max_size=300))
def test_a_vendor_s_broken_tag_does_not_cost_the_image(code: int, value: bytes) -> None:
    size, _ = told(with_tag(code, UNDEFINED, value, len(value)))
    assert size is None


def test_hostile_xml_says_nothing() -> None:
    entities = '<!DOCTYPE a [<!ENTITY b "ha">]><OME><Pixels PhysicalSizeX="&b;"/></OME>'
    assert told(with_tag(34683, ASCII, entities)) == (None, "")
    assert told(with_tag(34683, ASCII, "<a>" * 5000)) == (None, "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("100nm", 100.0), ("1um", 1000.0), ("1.5 µm", 1500.0), ("10 Å", 1.0), ("3 px", None),
     ("nm", None), ("", None), ("1/nm", None)],
)  # fmt: skip
def test_lengths_as_files_write_them(text: str, expected: float | None) -> None:
    assert quantity_nm(text) == (pytest.approx(expected) if expected else None)


def test_impossible_pixels_are_none() -> None:
    assert plausible(0.0, 1.0) is None
    assert plausible(float("nan"), 1.0) is None
    assert plausible(1.0, 100.0) is None
    assert plausible(None, 1.0) is None
    assert length_nm("1e-9", "1/m") is None
    assert from_resolution(0, 5, 1e7) is None
