# SPDX-License-Identifier: GPL-3.0-or-later
"""TensorFlow Serving's TLS file: what the server reads out of it is what was mounted."""

import stat
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from hypothesis import given
from hypothesis import strategies as st

from granulo_segmenter.predictor.ssl_config import main, ssl_config


def parse(text: str) -> dict[str, object]:
    """Read it by the fields of tensorflow_serving/config/ssl_config.proto."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="ssl_config.proto", syntax="proto3")
    message = file.message_type.add(name="SSLConfig")
    kinds = {
        "server_key": field.TYPE_STRING,
        "server_cert": field.TYPE_STRING,
        "custom_ca": field.TYPE_STRING,
        "client_verify": field.TYPE_BOOL,
    }
    for number, (name, kind) in enumerate(kinds.items(), 1):
        message.field.add(name=name, number=number, type=kind, label=field.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    parsed = message_factory.GetMessageClass(pool.FindMessageTypeByName("SSLConfig"))()
    text_format.Parse(text, parsed)
    return {name: getattr(parsed, name) for name in kinds}


@given(cert=st.text(), key=st.text(), client_ca=st.text())
def test_the_server_reads_what_was_mounted(cert: str, key: str, client_ca: str) -> None:
    text = ssl_config(cert.encode(), key.encode(), client_ca.encode())
    assert parse(text) == {
        "server_cert": cert,
        "server_key": key,
        "custom_ca": client_ca,
        "client_verify": bool(client_ca),
    }


def test_the_file_is_for_its_user_only_and_a_missing_one_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("cert", "key", "ca")
    for name in names:
        (tmp_path / name).write_text(f"{name}\n")
    cert, key, ca = (str(tmp_path / name) for name in names)
    out = tmp_path / "ssl.config"
    words = ["--cert", cert, "--key", key, "--client-ca", ca, "--out", str(out)]
    assert main(words) == 0
    assert parse(out.read_text())["server_key"] == "key\n"
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    (tmp_path / "key").unlink()
    assert main(words) == 2
    assert capsys.readouterr().err == f"ssl_config: {key}: No such file or directory\n"
