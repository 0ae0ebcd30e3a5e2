# SPDX-License-Identifier: GPL-3.0-or-later
"""docs/scaling.md says what benchmarks/scaling.py computes."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import scaling

ROOT = Path(__file__).resolve().parents[2]


def test_the_pages_tables_are_those_of_the_program() -> None:
    page = (ROOT / "docs" / "scaling.md").read_text()
    for table in scaling.document(1e6, scaling.Assumptions()).split("\n\n"):
        assert table in page, f"run benchmarks/scaling.py; the page lacks\n{table}"


def test_cores_follow_from_the_busiest_hour() -> None:
    given = replace(scaling.Assumptions(), peak=2.0, use=0.5)
    # One image a second takes as many cores as it takes seconds, twice for the peak, twice for use.
    assert scaling.cores(3.0, scaling.DAY_S, given) == pytest.approx(12.0)


def test_every_assumption_says_where_it_is_from() -> None:
    prices = {name for name in vars(scaling.Assumptions()) if name.startswith("usd_")}
    assert set(scaling.NOTES) | prices == set(vars(scaling.Assumptions()))
