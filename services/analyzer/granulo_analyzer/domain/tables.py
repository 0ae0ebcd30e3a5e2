# SPDX-License-Identifier: GPL-3.0-or-later
"""Particle tables as CSV: units in the column names, a blank where something is not known."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from granulo_analyzer.domain.morphology import ParticleTable, column_names

KEY_COLUMNS = ("particle", "image", "label")
"""Number in the analysis from 1, name of the image, number in its label image."""


def image_csv(table: ParticleTable) -> bytes:
    """Write the table of one image, without the columns that only a set of images has.

    Parameters
    ----------
    table : ParticleTable

    Returns
    -------
    bytes
        UTF-8 CSV with a header line; eight significant digits, ``true`` and ``false``.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows(zip(*(_cells(values) for values in table.columns.values()), strict=True))
    return text.getvalue().encode()


def read_image_csv(data: bytes) -> dict[str, NDArray[Any]]:
    """Read what `image_csv` wrote.

    Returns
    -------
    dict
        Column name to (n,) values: ``label`` and ``touched_edges`` int64,
        ``touches_border`` bool, others float64.
    """
    rows = list(csv.reader(io.StringIO(data.decode())))
    columns = zip(*rows[1:], strict=True) if len(rows) > 1 else ([] for _ in rows[0])
    return {name: _values(name, cells) for name, cells in zip(rows[0], columns, strict=True)}


def merged_csv(tables: Sequence[tuple[str, bytes]]) -> bytes:
    """Join the tables of several images.

    Parameters
    ----------
    tables : sequence of (str, bytes)
        Name and `image_csv` of every image, in order.

    Returns
    -------
    bytes
        UTF-8 CSV with `KEY_COLUMNS` first. A column that only some images have is blank for the
        others.
    """
    headers = {name for _, data in tables for name in data.split(b"\n", 1)[0].decode().split(",")}
    names = (
        *KEY_COLUMNS[:2],
        *column_names(has_pixel_size="area_nm2" in headers, has_grey="mean_grey" in headers),
    )
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    number = 0
    for image, data in tables:
        for row in csv.DictReader(io.StringIO(data.decode())):
            number += 1
            writer.writerow({"particle": number, "image": image, **row})
    return text.getvalue().encode()


def read_rows(data: bytes) -> Iterator[Mapping[str, str]]:
    """Iterate over the rows of `merged_csv`, as text by column name."""
    return csv.DictReader(io.StringIO(data.decode()))


def _cells(values: NDArray[Any]) -> Iterable[str]:
    if values.dtype.kind == "b":
        return ["true" if value else "false" for value in values.tolist()]
    if values.dtype.kind == "i":
        return [str(value) for value in values.tolist()]
    return [f"{value:.8g}" for value in values.tolist()]


def _values(name: str, cells: Iterable[str]) -> NDArray[Any]:
    if name == "touches_border":
        return np.array([cell == "true" for cell in cells], dtype=np.bool_)
    kind = np.int64 if name in ("label", "touched_edges") else np.float64
    return np.array([float(cell) for cell in cells]).astype(kind)
