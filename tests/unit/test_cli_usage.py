# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line itself: options, documentation, usage errors."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from granulo_client.cli import app, run_command

_DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "cli.md"
_COMMON = {"--server", "--data", "--json", "--quiet"}
_SECURITY = {"--tls-ca", "--client-cert", "--client-key", "--token-file"}


def _commands(group: Any, words: str) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{words} {name}")
        else:
            yield f"{words} {name}", command


_ALL = dict(_commands(typer.main.get_command(app), "granulo"))


def test_the_commands_are_those_of_the_interface() -> None:
    assert set(_ALL) == {
        *(f"granulo {name}" for name in ("up", "run", "render", "train", "segment", "analyze")),
        *(
            f"granulo {name}"
            for name in (
                "adapt",
                "compare-images",
                "evaluate",
                "screen",
                "version",
                "cross-validate",
            )
        ),
        *(f"granulo datasets {name}" for name in ("import", "list", "show")),
        *(f"granulo recipes {name}" for name in ("list", "show", "check", "compare")),
        *(f"granulo checkpoints {name}" for name in ("list", "rank", "select")),
        *(f"granulo models {name}" for name in ("list", "show", "promote")),
        *(f"granulo models {name}" for name in ("list", "show", "promote", "rollback", "export")),
        *(f"granulo operations {name}" for name in ("list", "watch", "cancel")),
        "granulo config show",
        "granulo store gc",
        *(f"granulo study {name}" for name in ("init", "schema")),
    }


@pytest.mark.parametrize("words", _ALL)
def test_every_command_takes_the_common_options_and_is_documented(words: str) -> None:
    text = _DOCUMENT.read_text()
    options = {option for item in _ALL[words].params for option in item.opts if "--" in option}

    assert options >= _COMMON
    # `granulo up` starts servers, which have settings, and `store` calls none; others call them.
    assert (options >= _SECURITY) is (words not in ("granulo up", "granulo store gc"))
    assert f"`{words}" in text
    missing = {option for option in options if option not in text} - {"--help"}
    assert not missing, f"docs/cli.md says nothing of {missing}"


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["bake"],
        ["render"],
        ["render", "sio2"],
        ["render", "sio2", "--count", "many"],
        ["render", "sio2", "--count", "0"],
        ["render", "nosuch.yaml", "--count", "1"],
        ["render", "sio2", "--count", "5", "--preview", "sheet.png"],
        ["render", "sio2", "--count", "0", "--preview", "sheet.png"],
        ["render", "sio2", "--preview", "."],
        ["render", "sio2", "--preview", "sheet.png", "--export", "x"],
        ["render", "sio2", "--count", "1", "--format", "coco"],
        ["render", "sio2", "--count", "1", "--export", "x", "--format", "zip"],
        ["recipes"],
        ["recipes", "check", "nosuch.yaml"],
        ["recipes", "compare", "sio2", "--out", "sheet.png"],
        ["recipes", "compare", "sio2", "nosuch.tif", "--out", "sheet.png"],
        ["recipes", "compare", "sio2", __file__, "--out", "sheet.png", "--profile", "1,2,3"],
        ["recipes", "compare", "sio2", __file__, "--out", "sheet.png", "--frames", "0"],
        ["segment", "--out", "x"],
        ["segment", "nosuch.tif", "--out", "x"],
        ["segment", __file__, __file__, "--out", "x"],
        ["segment", __file__, "--out", "x", "--method", "magic"],
        ["analyze", "nosuch_labels.tif", "--out", "x"],
        ["evaluate", "nosuch", "nosuch"],
        ["compare-images", ".", "--out", "x"],
        ["compare-images", "nosuch", ".", "--out", "x"],
        ["compare-images", ".", ".", "--out", "x", "--features", "magic"],
        ["compare-images", ".", ".", "--out", "x", "--features", "vgg16"],
        ["compare-images", ".", ".", "--out", "x", "--weights", __file__],
        ["compare-images", ".", ".", "--out", "x", "--profile", "1,2,3"],
        ["compare-images", ".", ".", "--out", "x", "--patch", "3"],
        ["train", "ds-1", "--epochs", "0"],
        ["train", "ds-1", "--validation", "nosuch.tif"],
        ["train", "ds-1", "--validation", "a,b,c"],
        ["train", "ds-1", "--weight", "ds-1"],
        ["train", "ds-1", "--weight", "ds-1=-2"],
        ["datasets", "import", "nosuch", "nosuch", "--name", "n"],
        ["datasets", "import", ".", "."],
        ["datasets", "import", ".", ".", "--name", "n"],
        ["datasets", "import", ".", ".", "--name", "n", "--content-height", "-1"],
        ["cross-validate", "mine", "--folds", "1"],
        ["cross-validate", "mine", "--epochs", "0"],
        ["checkpoints", "list", "particles"],
        ["checkpoints", "rank", "particles/1", "--by", "beauty"],
        ["checkpoints", "rank", "particles/1", "--page", "."],
        ["checkpoints", "select", "particles/1", "--by", "Ada", "--reason", "best"],
        ["checkpoints", "select", "particles/1/2", "--by", "Ada"],
        ["checkpoints", "select", "particles/1/2", "--by", "Ada", "--reason", " "],
        ["models", "list", "--server", "nowhere"],
        ["models", "promote", "a/b/c/d"],
        ["models", "rollback"],
        ["models", "export", "m/1"],
        ["models", "export", "m/1", "--out", "x", "--format", "zip"],
        ["operations", "watch", "nosuch"],
        ["run", "nosuch.yaml"],
        ["up", "--server", "127.0.0.1:1"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_exit_code_2_and_starts_nothing(
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GRANULO_DATA", str(tmp_path / "data"))

    assert run_command(words) == 2

    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err
    assert list(tmp_path.iterdir()) == []


def test_wrong_usage_with_json_is_a_json_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["render", "sio2", "--cuont", "3", "--json"]) == 2

    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "INVALID_ARGUMENT"
    assert "--cuont" in error["message"]


def test_an_output_folder_that_cannot_be_written_is_wrong_usage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image, blocker = tmp_path / "a.tif", tmp_path / "file"
    image.touch()
    blocker.touch()

    assert run_command(["segment", str(image), "--out", str(blocker / "out")]) == 2
    assert f"{blocker / 'out'} cannot be written" in capsys.readouterr().err


def test_the_version_is_told_without_a_server(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["version", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["granulo"]
