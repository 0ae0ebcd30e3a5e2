# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings: defaults < file < environment < arguments; each service extends `CoreSettings`."""

import os
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import urlsplit

import yaml
from pydantic import Field, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)

from granulo_core.errors import FieldViolation, invalid_fields
from granulo_core.security.settings import SecuritySettings

CONFIG_FILE_VARIABLE = "GRANULO_CONFIG"


class CoreSettings(SecuritySettings):
    """What every service may be told; each field is read from ``GRANULO_<FIELD>``.

    A YAML file named by ``GRANULO_CONFIG`` may set the same fields in lower case; the environment
    goes before it and arguments go before both. Make settings with `load`, whose errors say what
    to change. The keys of an S3 store are no settings: `granulo_core.store.s3` takes them from the
    environment only, which worker processes inherit and no file or log repeats.
    """

    model_config = SettingsConfigDict(
        env_prefix="GRANULO_",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )

    store_url: str = "./granulo-data/store"
    """Folder, ``file:///folder`` or ``s3://bucket/prefix?endpoint=http://host:port``."""
    listen: str = "127.0.0.1:0"
    """Address to serve on; port 0 takes a free one."""
    workers: int = Field(default=0, ge=0, le=1024)
    """CPU cores for worker processes; 0 takes all that this process may use."""
    engine: Literal["local", "ray"] = "local"
    """Where tasks run: in processes of this machine, or on a Ray cluster."""
    operations_at_once: int = Field(default=0, ge=0, le=4096)
    """Operations of a service that are worked on at the same time, the others wait; 0: 4, and 256
    with Ray, where small ones could not keep all nodes busy otherwise."""
    ray_address: str = ""
    """``ray://HOST:PORT`` of the cluster's client server, usually port 10001 of the head."""
    ray_token_file: str = ""
    """File with the cluster's token."""
    ray_node_cpus: float = Field(default=0.0, ge=0, le=1024)
    """Cores of the largest node; tasks that ask for more get these. 0 looks at the nodes that are
    there, which is too little where nodes start when something waits for them."""
    max_rpc_threads: int = Field(default=32, ge=4, le=1024)
    """Calls that are handled at once; streams may take at most half of them."""
    log_format: Literal["auto", "plain", "json"] = "auto"
    """``auto``: plain on a terminal, JSON elsewhere."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    metrics_listen: str = ""
    """``host:port`` at which Prometheus may ask for metrics (HTTP); none where empty."""
    model_server_metrics_listen: str = ""
    """The same of the model server that the standalone starts, which is a process of its own."""
    model_server_float32: bool = False
    """The standalone's model server computes in float32 also where the processor has bfloat16."""
    otlp_endpoint: str = ""
    """``http://host:port`` of the OpenTelemetry collector (OTLP over gRPC) that traces go to;
    ``https`` encrypts. None are kept where empty."""
    model_server: str = ""
    """Address of the prediction server; empty where the standalone starts its own."""
    max_image_px: int = Field(default=16384 * 16384, ge=1)
    """Largest image, in pixels, that is read."""

    @field_validator("metrics_listen", "model_server_metrics_listen")
    @classmethod
    def _is_address(cls, value: str) -> str:
        host, _, port = value.rpartition(":")
        if value and not (host and port.isdigit() and int(port) < 1 << 16):
            raise ValueError(f"{value!r} is no host:port, e.g. 127.0.0.1:9090")
        return value

    @field_validator("ray_address")
    @classmethod
    def _is_cluster(cls, value: str) -> str:
        parts = urlsplit(value)
        if value and (parts.scheme != "ray" or not parts.port or parts.path):
            raise ValueError(f"{value!r} must have the form ray://host:port")
        return value

    @field_validator("otlp_endpoint")
    @classmethod
    def _is_collector(cls, value: str) -> str:
        parts = urlsplit(value)
        if value and (parts.scheme not in ("http", "https") or not parts.netloc or parts.path):
            raise ValueError(f"{value!r} must have the form http://host:port or https://host:port")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order of precedence: arguments, environment, file."""
        del dotenv_settings, file_secret_settings
        path = os.environ.get(CONFIG_FILE_VARIABLE)
        sources: tuple[PydanticBaseSettingsSource, ...] = (init_settings, env_settings)
        if path:
            sources += (YamlConfigSettingsSource(settings_cls, yaml_file=path),)
        return sources

    @classmethod
    def load(cls, **arguments: Any) -> Self:
        """Read the settings; arguments that are ``None`` count as not given.

        Raises
        ------
        GranuloError
            FIELD_INVALID that names every unusable setting, or the unreadable file.
        """
        path = os.environ.get(CONFIG_FILE_VARIABLE)
        if path and not Path(path).is_file():
            raise invalid_fields(
                [FieldViolation(CONFIG_FILE_VARIABLE, f"names {path}, which is no file.")]
            )
        given = {name: value for name, value in arguments.items() if value is not None}
        try:
            settings = cls(**given)
        except ValidationError as error:
            raise invalid_fields(
                [
                    FieldViolation(_variable(item["loc"]), f"{item['msg']}.")
                    for item in error.errors(include_url=False, include_input=False)
                ]
            ) from None
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise invalid_fields(
                [FieldViolation(CONFIG_FILE_VARIABLE, f"{path} is no YAML mapping: {error}")]
            ) from error
        violations = settings.security_violations(settings.listen)
        others = (
            settings.listen,
            settings.health_listen,
            settings.model_server_metrics_listen,
        )
        own = settings.metrics_listen
        if own and own in others and not own.endswith(":0"):
            text = "must be another port than the other addresses to listen at."
            violations += [FieldViolation("GRANULO_METRICS_LISTEN", text)]
        if settings.engine == "ray" and not settings.ray_address:
            text = "is missing: where the Ray cluster of GRANULO_ENGINE=ray is."
            violations += [FieldViolation("GRANULO_RAY_ADDRESS", text)]
        if settings.ray_token_file and not Path(settings.ray_token_file).is_file():
            text = f"names {settings.ray_token_file}, which is no file."
            violations += [FieldViolation("GRANULO_RAY_TOKEN_FILE", text)]
        if violations:
            raise invalid_fields(violations)
        return settings

    @property
    def max_running(self) -> int:
        """Operations of a service that are worked on at the same time."""
        return self.operations_at_once or {"local": 4, "ray": 256}[self.engine]

    def shown(self) -> dict[str, Any]:
        """All settings as plain values for people to read; secrets show as asterisks."""
        return self.model_dump(mode="json")


def _variable(location: tuple[int | str, ...]) -> str:
    return "GRANULO_" + ".".join(str(part) for part in location).upper()
