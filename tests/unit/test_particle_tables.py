# SPDX-License-Identifier: GPL-3.0-or-later
"""Particle tables as Parquet, and the tables that come with labels."""

import io
from types import ModuleType

import numpy as np
import pytest

from granulo_analyzer.domain.morphology import measure
from granulo_analyzer.domain.morphology.columns import COLUMNS
from granulo_analyzer.domain.tables import (
    image_csv,
    merged_csv,
    merged_parquet,
    read_given,
    read_rows,
)


@pytest.fixture
def parquet() -> ModuleType:
    # The lock's pyarrow must be one that NumPy 1.26 can import.
    reason = "pyarrow does not import beside this NumPy"
    return pytest.importorskip("pyarrow.parquet", reason=reason, exc_type=ImportError)


def tables() -> list[tuple[str, bytes]]:
    labels = np.zeros((60, 60), np.uint16)
    labels[5:30, 5:30], labels[40:44, 0:5] = 3, 7
    known = measure(labels, pixel_size_nm=(2.0, 2.0), confidence={3: 0.5})
    return [("a, b", image_csv(known)), ("c", image_csv(measure(labels, grey=labels)))]


def test_parquet_has_the_columns_of_the_csv_with_types_units_and_nulls(parquet: ModuleType) -> None:
    table = parquet.read_table(io.BytesIO(merged_parquet(tables())))
    rows = list(read_rows(merged_csv(tables())))
    assert table.column_names == list(rows[0])
    assert table["particle"].to_pylist() == [1, 2, 3, 4]
    assert table["image"].to_pylist() == ["a, b", "a, b", "c", "c"]
    assert table["touches_border"].to_pylist() == [False, True, False, True]
    assert table["area_nm2"].to_pylist() == [2500.0, 80.0, None, None]
    assert table["fractal_dimension"].to_pylist()[1] is None
    assert table["confidence"].to_pylist() == [0.5, None, None, None]
    assert table["mean_grey"].to_pylist() == [None, None, 3.0, 7.0]
    kinds = {"int64": "int64", "bool": "bool", "float64": "double"}
    for name in table.column_names[2:]:
        field = table.schema.field(name)
        assert str(field.type) == kinds[COLUMNS[name].dtype], name
        assert field.metadata == {b"unit": COLUMNS[name].unit.encode()}, name
        cells = [row[name] for row in rows]
        values = table[name].to_pylist()
        assert [value is None for value in values] == [cell == "" for cell in cells], name


def test_parquet_of_no_particle_has_its_columns(parquet: ModuleType) -> None:
    empty = image_csv(measure(np.zeros((9, 9), np.uint8), pixel_size_nm=(1.0, 1.0)))
    table = parquet.read_table(io.BytesIO(merged_parquet([("none", empty)])))
    assert table.num_rows == 0
    assert str(table.schema.field("ecd_nm").type) == "double"


def test_tables_of_the_segmenter_and_the_renderer_are_understood() -> None:
    segmented = b"label,confidence,area_px\n1,0.5000,12\n4,0.9,30\n"
    assert read_given(segmented) == {"confidence": {1: 0.5, 4: 0.9}}
    rendered = b"id,class,visible_fraction\n2,sphere,0.25\n5,sphere,\n"
    assert read_given(rendered) == {"visible_fraction": {2: 0.25}}
    assert read_given(b"label,area_px\n1,12\n") == {}
    assert read_given(b"label,confidence\n") == {}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"confidence\n0.5\n", "no column label"),
        (b"label,confidence\n1,high\n", "no number"),
        (b"label,confidence\none,0.5\n", "no number"),
        (b"label,confidence\n1,1.5\n", "outside of 0 to 1"),
        (b"label,confidence\n1,nan\n", "outside of 0 to 1"),
        (b"\xff\xfe\x00", "no table"),
    ],
)
def test_a_table_that_does_not_say_it_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_given(data)
