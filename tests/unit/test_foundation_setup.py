# SPDX-License-Identifier: GPL-3.0-or-later
"""scripts/setup.py: what it does on a machine that lacks something."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def setup():
    specification = importlib.util.spec_from_file_location(
        "granulo_setup", ROOT / "scripts" / "setup.py"
    )
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def commands(setup, monkeypatch):
    """Record what would be run, and lack two libraries."""
    recorded = []

    class Done:
        returncode = 0

    def run(command, **options):
        recorded.append(" ".join(command))
        return Done()

    monkeypatch.setattr(setup.subprocess, "run", run)
    monkeypatch.setitem(setup.SYSTEM_LIBRARIES, "libgranulo-missing.so.1", "libmissing1")
    return recorded


def test_this_machine_has_every_library_that_bpy_links(setup):
    missing = [name for name in setup.SYSTEM_LIBRARIES if not setup.is_loadable(name)]

    assert missing == []


def test_missing_libraries_are_installed_when_root_and_apt_exists(setup, commands, monkeypatch):
    monkeypatch.setattr(setup.os, "geteuid", lambda: 0)
    monkeypatch.setattr(setup.shutil, "which", lambda name: "/usr/bin/apt-get")

    setup.check_system_libraries()

    assert commands == [
        "apt-get update -q",
        "apt-get install -y --no-install-recommends libmissing1",
    ]


@pytest.mark.parametrize(("uid", "apt"), [(1000, "/usr/bin/apt-get"), (0, None)])
def test_otherwise_the_apt_line_is_printed_and_the_exit_code_is_2(
    setup, commands, monkeypatch, capsys, uid, apt
):
    monkeypatch.setattr(setup.os, "geteuid", lambda: uid)
    monkeypatch.setattr(setup.shutil, "which", lambda name: apt)

    with pytest.raises(SystemExit) as exit_:
        setup.check_system_libraries()

    assert exit_.value.code == 2
    assert "apt-get install -y --no-install-recommends libmissing1" in capsys.readouterr().err
    assert commands == []


def test_another_python_is_refused_with_the_remedy(setup, monkeypatch, capsys):
    monkeypatch.setattr(setup.sys, "version_info", (3, 13, 0))

    with pytest.raises(SystemExit) as exit_:
        setup.check_python()

    assert exit_.value.code == 2
    assert "make setup PYTHON=" in capsys.readouterr().err


def test_an_up_to_date_environment_is_left_alone(setup, monkeypatch, tmp_path, capsys):
    stamp = tmp_path / "stamp"
    stamp.write_text(setup.state_digest())
    monkeypatch.setattr(setup, "STAMP", stamp)
    monkeypatch.setattr(setup, "run_pip", lambda *arguments: pytest.fail("pip was run"))

    assert setup.main() == 0
    assert "up to date" in capsys.readouterr().out


def test_an_environment_that_was_moved_or_cut_short_is_not_usable(setup, tmp_path):
    environment = tmp_path / "venv"
    (environment / "bin").mkdir(parents=True)
    assert not setup.is_usable(environment)

    (environment / "pyvenv.cfg").write_text(f"command = python3 -m venv {environment}\n")
    assert not setup.is_usable(environment)

    (environment / "bin" / "pip").touch()
    assert setup.is_usable(environment)

    (environment / "pyvenv.cfg").write_text("command = python3 -m venv /elsewhere/.venv\n")
    assert not setup.is_usable(environment)
