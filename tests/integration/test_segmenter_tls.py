# SPDX-License-Identifier: GPL-3.0-or-later
"""The way from the segmenter to its model server over mutual TLS."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from granulo_core.errors import GranuloError, Reason
from granulo_core.settings import CoreSettings
from granulo_segmenter.domain.model import ServedModel
from granulo_segmenter.predictor.client import Predictor

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))
from certificates import Authority, Pair

ABSENT = ServedModel("nobody", 1)


def client(authority: Authority, pair: Pair | None = None) -> CoreSettings:
    shown = {"tls_client_cert": str(pair.cert), "tls_client_key": str(pair.key)} if pair else {}
    return CoreSettings.load(tls_ca=str(authority.path), **shown)


def refusal(address: str, security: CoreSettings | None) -> GranuloError:
    with (
        Predictor(address, security, patience_s=0) as predictor,
        pytest.raises(GranuloError) as caught,
    ):
        predictor.wait_until_available(ABSENT)
    return caught.value


def test_the_model_server_takes_certificates_from_the_settings(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow_serving")
    authority = Authority(tmp_path)
    pair = authority.issue("model-server")
    environment = {
        "GRANULO_TLS_CERT": str(pair.cert),
        "GRANULO_TLS_KEY": str(pair.key),
        "GRANULO_TLS_CLIENT_CA": str(authority.path),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "granulo_segmenter.predictor.embedded", "--base", str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )
    try:
        assert process.stdout is not None
        address = json.loads(process.stdout.readline())["address"]
        # It answers that there is no such model, so the call reached it.
        friend = refusal(address, client(authority, authority.issue("segmenter")))
        assert "does not serve" in friend.message
        for stranger in (None, client(authority)):
            error = refusal(address, stranger)
            assert error.reason is Reason.MODEL_SERVER_UNAVAILABLE
            assert "does not answer" in error.message
    finally:
        process.terminate()
        process.wait(30)
