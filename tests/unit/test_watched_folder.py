# SPDX-License-Identifier: GPL-3.0-or-later
"""A folder that an instrument fills: every file once, when it is whole."""

import os
from pathlib import Path

import pytest

from granulo_client.commands.statistics import analysis_settings
from granulo_client.errors import UsageError
from granulo_client.watching import WatchedFolder


def watched(folder: Path, notes: list[str] | None = None) -> WatchedFolder:
    return WatchedFolder(folder, 0.01, (notes if notes is not None else []).append)


def write(path: Path, content: bytes, age_s: float) -> None:
    path.write_bytes(content)
    os.utime(path, (1e9 - age_s, 1e9 - age_s))


def test_files_come_by_their_time_and_only_micrographs(tmp_path: Path) -> None:
    write(tmp_path / "b.tif", b"x", age_s=20)
    write(tmp_path / "a.png", b"x", age_s=10)
    write(tmp_path / ".hidden.tif", b"x", age_s=5)
    write(tmp_path / "notes.txt", b"x", age_s=5)
    write(tmp_path / "empty.tif", b"", age_s=5)
    folder = watched(tmp_path)
    files = iter(folder)
    assert [next(files).name for _ in range(2)] == ["b.tif", "a.png"]
    write(tmp_path / "c.tif", b"x", age_s=1)
    assert next(files).name == "c.tif"
    folder.stop()
    assert list(files) == []


def test_a_file_that_grows_is_taken_when_it_is_whole_and_only_once(tmp_path: Path) -> None:
    path = tmp_path / "growing.tif"
    seen_at: list[int] = []

    class Growing(WatchedFolder):
        """The file grows at each of the first five looks and is written anew after the sixth."""

        looks = 0

        def _look(self) -> dict[Path, tuple[int, int]]:
            self.looks += 1
            if self.looks <= 5 or self.looks == 9:
                with path.open("ab") as file:
                    file.write(b"part")
            if self.looks == 15:
                self.stop()
            return super()._look()

    folder = Growing(tmp_path, 0.001, print)
    for _ in folder:
        seen_at.append(folder.looks)
    assert seen_at == [6]


def test_a_folder_that_is_away_is_waited_for_and_told_once(tmp_path: Path) -> None:
    share = tmp_path / "share"
    notes: list[str] = []

    class Returning(WatchedFolder):
        """Away for three looks."""

        looks = 0

        def _look(self) -> dict[Path, tuple[int, int]]:
            self.looks += 1
            if self.looks == 4:
                share.mkdir()
                (share / "late.tif").write_bytes(b"x")
            return super()._look()

    folder = Returning(share, 0.001, notes.append)
    assert next(iter(folder)).name == "late.tif"
    assert len(notes) == 1
    assert "cannot be read" in notes[0]


_GOOD = {
    "counting_rule": "exclude",
    "confidence_level": "90%",
    "target": "0.1",
    "seed": 3,
    "min_confidence": 0.5,
    "uncertainty": ["pixel size=1%", "drift = 0.5nm"],
}


def test_settings_are_read_from_their_options() -> None:
    settings = analysis_settings(**_GOOD)  # type: ignore[arg-type]
    assert settings.confidence_level == pytest.approx(0.9)
    assert settings.target_precision == pytest.approx(0.1)
    assert [line.name for line in settings.uncertainty] == ["pixel size", "drift"]
    assert settings.uncertainty[0].relative == pytest.approx(0.01)
    assert settings.uncertainty[1].absolute_nm == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("counting_rule", "by eye"),
        ("confidence_level", "101%"),
        ("confidence_level", "often"),
        ("target", "0"),
        ("target", "nan"),
        ("seed", -1),
        ("min_confidence", 1.5),
        ("min_confidence", float("nan")),
        ("uncertainty", ["1%"]),
        ("uncertainty", ["drift=0.5"]),
        ("uncertainty", ["drift=-1nm"]),
        ("uncertainty", ["drift=200%"]),
    ],
)
def test_an_unusable_value_is_refused_with_its_option(option: str, value: object) -> None:
    with pytest.raises(UsageError) as caught:
        analysis_settings(**{**_GOOD, option: value})  # type: ignore[arg-type]
    shown = value[0] if isinstance(value, list) else value
    assert str(shown) in str(caught.value)
    assert f"--{option.replace('_', '-')}" in str(caught.value)
