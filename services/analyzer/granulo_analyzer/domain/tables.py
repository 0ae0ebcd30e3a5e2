# SPDX-License-Identifier: GPL-3.0-or-later
"""Particle tables as files: units in the column names, a blank where something is not known."""

import csv
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from granulo_analyzer.domain.morphology import ParticleTable
from granulo_analyzer.domain.morphology.columns import COLUMNS

KEY_COLUMNS = ("particle", "image", "label")
"""Number in the analysis from 1, name of the image, number in its label image."""

GIVEN_COLUMNS = ("confidence", "visible_fraction")
"""What only who made the labels can tell of a particle."""


def image_csv(table: ParticleTable) -> bytes:
    """Write the table of one image, without the columns that only a set of images has.

    Parameters
    ----------
    table : ParticleTable

    Returns
    -------
    bytes
        UTF-8 CSV with a header line; eight significant digits, ``true`` and ``false``, a blank
        where a particle has no such value.
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
        Column name to (n,) values of the types of `columns.COLUMNS`; NaN for a blank.
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
    names = (*KEY_COLUMNS[:2], *(name for name in COLUMNS if name in headers))
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


def merged_parquet(tables: Sequence[tuple[str, bytes]]) -> bytes:
    """Join the tables of several images with their types.

    Parameters
    ----------
    tables : sequence of (str, bytes)
        As of `merged_csv`.

    Returns
    -------
    bytes
        Parquet with the columns of `merged_csv`: whole numbers as int64, flags as bool, others as
        double, null where the CSV is blank. The metadata of every measured column has its
        ``unit`` (UCUM).
    """
    import pyarrow as pa
    from pyarrow import parquet

    parts = [read_image_csv(data) for _, data in tables]
    counts = [len(part["label"]) for part in parts]
    images = [image for (image, _), count in zip(tables, counts, strict=True) for _ in range(count)]
    fields = [
        pa.field("particle", pa.int64(), nullable=False),
        pa.field("image", pa.string(), nullable=False),
    ]
    arrays = [pa.array(np.arange(1, len(images) + 1)), pa.array(images, pa.string())]
    for column in COLUMNS.values():
        if not any(column.name in part for part in parts):
            continue
        kind = {"int64": pa.int64(), "bool": pa.bool_(), "float64": pa.float64()}[column.dtype]
        fields.append(pa.field(column.name, kind, metadata={"unit": column.unit}))
        chunks = [
            pa.nulls(count, kind)
            if column.name not in part
            else pa.array(part[column.name], kind, from_pandas=True)
            for part, count in zip(parts, counts, strict=True)
        ]
        arrays.append(pa.chunked_array(chunks, kind))
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.table(arrays, schema=pa.schema(fields)), sink, compression="zstd")
    content: bytes = sink.getvalue().to_pybytes()
    return content


def read_given(data: bytes) -> dict[str, dict[int, float]]:
    """What a table that came with the labels says of the particles.

    Parameters
    ----------
    data : bytes
        CSV with a column ``label`` (or ``id``), as the segmenter and the renderer write it.

    Returns
    -------
    dict
        ``confidence`` and ``visible_fraction``, where the table has them, by label.

    Raises
    ------
    ValueError
        What is wrong with the table.
    """
    try:
        rows = list(csv.DictReader(io.StringIO(data.decode())))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"is no table as CSV in UTF-8: {error}") from error
    found: dict[str, dict[int, float]] = {}
    if not rows:
        return found
    key = next((name for name in ("label", "id") if name in rows[0]), None)
    if key is None:
        raise ValueError("has no column label (or id) that tells which particle a row is about")
    for name in GIVEN_COLUMNS:
        if name not in rows[0]:
            continue
        try:
            values = {
                int(row[key]): float(row[name]) for row in rows if row[name] not in ("", None)
            }
        except (TypeError, ValueError) as error:
            raise ValueError(f"has a cell in {key} or {name} that is no number: {error}") from error
        if any(not 0 <= value <= 1 for value in values.values()):
            raise ValueError(f"has a {name} outside of 0 to 1")
        found[name] = values
    return found


def _cells(values: NDArray[Any]) -> Iterable[str]:
    if values.dtype.kind == "b":
        return ["true" if value else "false" for value in values.tolist()]
    if values.dtype.kind == "i":
        return [str(value) for value in values.tolist()]
    return ["" if math.isnan(value) else f"{value:.8g}" for value in values.tolist()]


def _values(name: str, cells: Iterable[str]) -> NDArray[Any]:
    dtype = COLUMNS[name].dtype
    if dtype == "bool":
        return np.array([cell == "true" for cell in cells], dtype=np.bool_)
    return np.array([float(cell or "nan") for cell in cells]).astype(dtype)
