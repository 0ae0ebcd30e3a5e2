# SPDX-License-Identifier: GPL-3.0-or-later
"""Seconds by stage: medians over rounds."""

import json
import statistics
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


class Stopwatch:
    """Collects the seconds of each stage over several rounds."""

    def __init__(self) -> None:
        self._rounds: dict[str, list[float]] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a block as one round of a stage."""
        started = time.perf_counter()
        yield
        self.add(name, time.perf_counter() - started)

    def add(self, name: str, seconds: float) -> None:
        """Count a round that was timed elsewhere."""
        self._rounds.setdefault(name, []).append(seconds)

    def values(self, name: str) -> list[float]:
        """Seconds of every round of a stage."""
        return self._rounds[name]

    def rounds(self) -> list[list[float]]:
        """Seconds of every round of each stage, in the order of their first use."""
        return list(self._rounds.values())

    def medians(self) -> dict[str, float]:
        """Median seconds of each stage, in the order of their first use."""
        return {name: statistics.median(values) for name, values in self._rounds.items()}


def emit(title: str, unit: str, stages: Mapping[str, float], note: str = "") -> None:
    """Hand a result to `bench.py`, which runs each part in a process of its own."""
    result = {"title": title, "unit": unit, "stages": dict(stages), "note": note}
    sys.stdout.write(f"RESULT {json.dumps(result)}\n")
    sys.stdout.flush()
