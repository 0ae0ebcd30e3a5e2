# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings: which source wins, and what is said about an unusable one. Logs follow from them."""

import json
import logging
import os
from pathlib import Path

import pytest
import structlog
from pydantic import SecretStr

from granulo_core.errors import GranuloError
from granulo_core.settings import CoreSettings
from granulo_core.telemetry.logs import configure_logging, configure_worker_logging


class ServiceSettings(CoreSettings):
    token: SecretStr = SecretStr("")
    tile_px: int = 512


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("GRANULO_"):
            monkeypatch.delenv(name)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "granulo.yaml"
    monkeypatch.setenv("GRANULO_CONFIG", str(path))
    return path


def test_arguments_beat_the_environment_beats_the_file_beats_the_defaults(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.write_text("workers: 1\ntile_px: 64\nlisten: 127.0.0.1:1\n")
    monkeypatch.setenv("GRANULO_WORKERS", "2")
    monkeypatch.setenv("GRANULO_TILE_PX", "128")
    settings = ServiceSettings.load(workers=3)
    assert (settings.workers, settings.tile_px, settings.listen) == (3, 128, "127.0.0.1:1")
    assert settings.log_level == "info"


def test_an_argument_that_is_not_given_and_an_empty_variable_change_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GRANULO_WORKERS", "")
    monkeypatch.setenv("GRANULO_LISTEN", "127.0.0.1:7")
    settings = CoreSettings.load(listen=None, workers=None)
    assert (settings.listen, settings.workers) == ("127.0.0.1:7", 0)


def test_every_unusable_setting_is_named_by_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRANULO_WORKERS", "-1")
    monkeypatch.setenv("GRANULO_LOG_FORMAT", "xml")
    with pytest.raises(GranuloError) as caught:
        CoreSettings.load()
    assert {violation.field for violation in caught.value.violations} == {
        "GRANULO_WORKERS",
        "GRANULO_LOG_FORMAT",
    }
    assert "'plain'" in caught.value.message


@pytest.mark.parametrize("text", ["- a\n- b\n", "workers: [", "just words\n"])
def test_a_file_that_is_no_mapping_is_named(config: Path, text: str) -> None:
    config.write_text(text)
    with pytest.raises(GranuloError, match=r"GRANULO_CONFIG.*granulo\.yaml"):
        CoreSettings.load()


def test_a_missing_file_is_named(config: Path) -> None:
    with pytest.raises(GranuloError, match=r"granulo\.yaml, which is no file"):
        CoreSettings.load()


def test_secrets_are_masked_where_settings_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRANULO_TOKEN", "hush-hush")
    settings = ServiceSettings.load()
    assert settings.token.get_secret_value() == "hush-hush"
    assert "hush" not in json.dumps(settings.shown())
    assert "hush" not in repr(settings)
    assert settings.shown()["tile_px"] == 512


@pytest.fixture
def restored_logging(monkeypatch: pytest.MonkeyPatch):
    # Set here, so that what configure_logging leaves in the environment goes again.
    monkeypatch.setenv("GRANULO_LOG_FORMAT", "")
    monkeypatch.setenv("GRANULO_LOG_LEVEL", "")
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.mark.usefixtures("restored_logging")
def test_json_logs_are_one_object_a_line_for_our_and_others_events(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logging(CoreSettings.load(log_format="json"))
    password = "hush-hush"
    structlog.get_logger("granulo_core.test").info("started", address="127.0.0.1:1")
    logging.getLogger("other").warning("slow: %d s", 3)
    logging.getLogger("urllib3").info("not worth a line")
    try:
        raise RuntimeError("it broke")
    except RuntimeError:
        structlog.get_logger("granulo_core.test").exception("failed", task="t-1")
    captured = capsys.readouterr()
    assert captured.out == ""
    ours, other, failed = map(json.loads, captured.err.splitlines())
    assert (ours["event"], ours["address"], ours["level"]) == ("started", "127.0.0.1:1", "info")
    assert (other["event"], other["logger"]) == ("slow: 3 s", "other")
    assert "RuntimeError: it broke" in failed["exception"]
    assert password not in captured.err  # no local variables in traces


@pytest.mark.usefixtures("restored_logging")
def test_workers_log_as_their_parent_does(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(CoreSettings.load(log_format="json", log_level="warning"))
    logging.getLogger().handlers.clear()
    configure_worker_logging()
    structlog.get_logger("granulo_core.test").info("too quiet")
    structlog.get_logger("granulo_core.test").warning("loud enough")
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["event"] == "loud enough"


@pytest.mark.usefixtures("restored_logging")
def test_context_is_bound_to_every_event(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(CoreSettings.load(log_format="plain"))
    with structlog.contextvars.bound_contextvars(request_id="r-1"):
        structlog.get_logger("granulo_core.test").info("inside")
    structlog.get_logger("granulo_core.test").info("outside")
    inside, outside = capsys.readouterr().err.splitlines()
    assert "request_id=r-1" in inside
    assert "request_id" not in outside


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"engine": "ray"}, "GRANULO_RAY_ADDRESS"),
        ({"ray_address": "10.0.0.7:10001"}, "GRANULO_RAY_ADDRESS"),
        ({"ray_address": "ray://head"}, "GRANULO_RAY_ADDRESS"),
        ({"ray_token_file": "/nowhere/token"}, "GRANULO_RAY_TOKEN_FILE"),
        ({"metrics_listen": "9090"}, "GRANULO_METRICS_LISTEN"),
        (
            {"listen": "127.0.0.1:8080", "metrics_listen": "127.0.0.1:8080"},
            "GRANULO_METRICS_LISTEN",
        ),
        ({"otlp_endpoint": "collector:4317"}, "GRANULO_OTLP_ENDPOINT"),
    ],
)
def test_addresses_that_cannot_work_are_refused(given: dict[str, str], field: str) -> None:
    with pytest.raises(GranuloError) as caught:
        CoreSettings.load(**given)
    assert [item.field for item in caught.value.violations] == [field]
