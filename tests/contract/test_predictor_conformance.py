# SPDX-License-Identifier: GPL-3.0-or-later
"""The segmenter's client and a model server: conftest.py says which.

What the server owes beyond it is in test_serving_conformance.py.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from granulo_core.errors import Code, GranuloError, Reason
from granulo_segmenter.domain.model import ServedModel
from granulo_segmenter.predictor import wire
from granulo_segmenter.predictor.client import Predictor

MODEL = ServedModel("tiny", 1)


@pytest.fixture
def predictor(served: tuple[str, Path]) -> Iterator[Predictor]:
    with Predictor(served[0], patience_s=30) as made:
        yield made


def tile(height: int = 32, width: int = 48) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (height, width)).astype(np.uint8)


def call(address: str, method: str, request: Any, response: str) -> Any:
    with grpc.insecure_channel(address) as channel:
        stub = channel.unary_unary(
            method,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=lambda data: wire.parse(response, data),
        )
        return stub(request, timeout=20)


def predict_request(
    *, name: str = "tiny", version: int | None = 1, signature: str = "serving_default",
    array: np.ndarray | None = None, alias: str = "image", outputs: tuple[str, ...] = (),
) -> Any:  # fmt: skip
    spec = wire.new("ModelSpec", name=name, signature_name=signature)
    if version is not None:
        spec.version.value = version
    value = wire.to_tensor(tile()[None, :, :, None] if array is None else array)
    entry = wire.new("InputsEntry", key=alias, value=value)
    return wire.new("PredictRequest", model_spec=spec, inputs=[entry], output_filter=outputs)


def test_outputs_are_the_network_s(predictor: Predictor) -> None:
    found = predictor.predict(MODEL, tile(), ("foreground", "distance"))
    assert {name: array.dtype for name, array in found.items()} == {
        "foreground": np.float32, "distance": np.float32
    }  # fmt: skip
    np.testing.assert_allclose(found["foreground"], tile() / 255, atol=1e-3)
    np.testing.assert_allclose(found["distance"], tile() / 510, atol=1e-3)


def test_any_size_and_only_the_wanted_outputs(predictor: Predictor) -> None:
    found = predictor.predict(MODEL, tile(1024, 1024), ("foreground",))
    assert list(found) == ["foreground"]
    assert found["foreground"].shape == (1024, 1024)


def test_many_tiles_come_back_in_order(predictor: Predictor) -> None:
    tiles = [np.full((16, 16), level, np.uint8) for level in range(0, 250, 25)]
    answers = predictor.predict_many(MODEL, tiles, ("foreground",))
    found = [answer["foreground"].mean() for answer in answers]
    np.testing.assert_allclose(found, [level / 255 for level in range(0, 250, 25)], atol=1e-3)


def test_the_answer_names_the_version(served: tuple[str, Path]) -> None:
    answer = call(served[0], wire.PREDICT, predict_request(version=None), "PredictResponse")
    assert answer.model_spec.name == "tiny"
    assert answer.model_spec.version.value == 1
    assert {entry.key for entry in answer.outputs} == {"foreground", "distance"}


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"name": "nobody"}, grpc.StatusCode.NOT_FOUND),
        ({"version": 99}, grpc.StatusCode.NOT_FOUND),
        ({"name": ""}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"signature": "other"}, grpc.StatusCode.FAILED_PRECONDITION),
        ({"alias": "picture"}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"array": tile()[None, :, :, None].astype(np.float32)}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"array": tile()}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"outputs": ("nothing",)}, grpc.StatusCode.INVALID_ARGUMENT),
    ],
    ids=["model", "version", "no model", "signature", "input name", "type", "shape", "output"],
)
def test_wrong_requests_get_tensorflow_serving_s_codes(
    served: tuple[str, Path], options: dict[str, Any], code: grpc.StatusCode
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        call(served[0], wire.PREDICT, predict_request(**options), "PredictResponse")
    assert caught.value.code() is code


def test_status_tells_which_versions_answer(served: tuple[str, Path], predictor: Predictor) -> None:
    assert predictor.is_available(MODEL)
    assert not predictor.is_available(ServedModel("tiny", 77))
    assert not predictor.is_available(ServedModel("nobody", 1))


def test_metadata_carries_the_signature(served: tuple[str, Path]) -> None:
    from tensorflow_serving.apis import get_model_metadata_pb2, prediction_service_pb2_grpc

    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "tiny"
    with grpc.insecure_channel(served[0]) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        answer = stub.GetModelMetadata(request, timeout=20)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        assert answer.metadata["signature_def"].Unpack(signatures)
        signature = signatures.signature_def["serving_default"]
        assert list(signature.inputs) == ["image"]
        assert set(signature.outputs) == {"foreground", "distance"}
        request.metadata_field[:] = ["other"]
        with pytest.raises(grpc.RpcError) as caught:
            stub.GetModelMetadata(request, timeout=20)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_new_version_is_found_while_serving(
    served: tuple[str, Path], predictor: Predictor, save_model: Callable[..., None]
) -> None:
    save_model(served[1] / "tiny" / "2", 0.5, half=False)
    # The client waits until the server has it.
    found = predictor.predict(ServedModel("tiny", 2), tile(), ("foreground",))
    np.testing.assert_allclose(found["foreground"], tile() / 510, atol=1e-3)


def test_the_client_s_messages_are_the_real_ones() -> None:
    from google.protobuf import wrappers_pb2
    from tensorflow.core.framework import tensor_pb2, tensor_shape_pb2
    from tensorflow_serving.apis import get_model_status_pb2, model_pb2, predict_pb2
    from tensorflow_serving.apis import status_pb2 as serving_status_pb2

    real = {
        "Int64Value": wrappers_pb2.Int64Value,
        "Dim": tensor_shape_pb2.TensorShapeProto.Dim,
        "TensorShapeProto": tensor_shape_pb2.TensorShapeProto,
        "TensorProto": tensor_pb2.TensorProto,
        "ModelSpec": model_pb2.ModelSpec,
        "InputsEntry": predict_pb2.PredictRequest.InputsEntry,
        "PredictRequest": predict_pb2.PredictRequest,
        "PredictResponse": predict_pb2.PredictResponse,
        "GetModelStatusRequest": get_model_status_pb2.GetModelStatusRequest,
        "StatusProto": serving_status_pb2.StatusProto,
        "ModelVersionStatus": get_model_status_pb2.ModelVersionStatus,
        "GetModelStatusResponse": get_model_status_pb2.GetModelStatusResponse,
    }
    assert set(real) == set(wire.SCHEMA)
    for name, fields in wire.SCHEMA.items():
        for field, (number, kind, repeated) in fields.items():
            found = real[name].DESCRIPTOR.fields_by_name[field]
            assert found.number == number, (name, field)
            assert found.is_repeated == repeated, (name, field)
            if found.enum_type is not None:
                assert kind == "int32", (name, field)
            elif found.message_type is None:
                assert found.type == wire._SCALARS[kind], (name, field)
            else:
                # Both maps have entries of the same two fields.
                assert found.message_type.name.replace("Outputs", "Inputs") == kind, (name, field)
    states = get_model_status_pb2.ModelVersionStatus
    assert (states.AVAILABLE, states.END) == (wire.STATE_AVAILABLE, wire.STATE_END)


def test_tensors_of_both_forms_are_read() -> None:
    import tensorflow as tf

    array = np.linspace(0, 1, 12, dtype=np.float16).reshape(1, 3, 4)
    by_field = tf.make_tensor_proto(array)
    del by_field.half_val[:]
    by_field.tensor_content = b""
    by_field.half_val.extend(array.view(np.uint16).ravel().tolist())
    for message in (by_field, tf.make_tensor_proto(array)):
        tensor = wire.parse("TensorProto", message.SerializeToString())
        np.testing.assert_array_equal(wire.from_tensor(tensor), array)
    np.testing.assert_array_equal(
        tf.make_ndarray(type(by_field).FromString(wire.to_tensor(array).SerializeToString())), array
    )


def test_a_process_that_predicts_does_not_import_tensorflow() -> None:
    code = (
        "import sys, granulo_segmenter.predictor.client as c; c.wire.new('PredictRequest');"
        "sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class TestEmbeddedOnly:
    """What the embedded server does beyond the protocol."""

    def test_no_server_is_told_with_address_and_remedy(self) -> None:
        with (
            Predictor("127.0.0.1:9", patience_s=0.3) as nobody,
            pytest.raises(GranuloError, match=r"127\.0\.0\.1:9.*granulo up") as caught,
        ):
            nobody.predict(MODEL, tile(), ("foreground",))
        assert caught.value.reason is Reason.MODEL_SERVER_UNAVAILABLE
        assert caught.value.code is Code.UNAVAILABLE

    def test_broken_models_do_not_stop_it_but_the_end_of_its_parent_does(
        self, tmp_path: Path, save_model: Callable[..., None]
    ) -> None:
        save_model(tmp_path / "tiny" / "1", 1.0)
        (tmp_path / "broken" / "3").mkdir(parents=True)
        (tmp_path / "broken" / "3" / "saved_model.pb").write_bytes(b"no model")
        parent, child, address = self.start_as_grandchild(tmp_path)
        try:
            with Predictor(address, patience_s=30) as predictor:
                started = time.monotonic()
                with pytest.raises(GranuloError, match="cannot load") as caught:
                    predictor.predict(ServedModel("broken", 3), tile(), ("foreground",))
                assert caught.value.reason is Reason.MODEL_SIGNATURE_MISMATCH
                assert time.monotonic() - started < 15, "it waited for a model that cannot come"
                with pytest.raises(GranuloError, match="no output rim") as caught:
                    predictor._output({}, "rim", (4, 4), MODEL)
                assert predictor.predict(MODEL, tile(), ("foreground",))
                self.check_reload(address, tmp_path)
                shutil.rmtree(tmp_path / "tiny" / "1")
                self.wait_until(lambda: not predictor.is_available(MODEL))
                (tmp_path / "tiny").rename(tmp_path / "gone")
                time.sleep(0.5)
                assert not predictor.is_available(MODEL)
        finally:
            os.kill(parent.pid, signal.SIGKILL)
            parent.wait()
        self.wait_until(lambda: not Path(f"/proc/{child}").exists())

    def test_an_answer_is_the_same_bits_whatever_else_is_computed(
        self, served: tuple[str, Path], predictor: Predictor
    ) -> None:
        tiles = [np.random.default_rng(n).integers(0, 255, (64, 64), np.uint8) for n in range(12)]
        alone = [predictor.predict(MODEL, tile, ("foreground",)) for tile in tiles]
        with ThreadPoolExecutor(12) as pool, Predictor(served[0], in_flight=12) as busy:
            found = list(pool.map(lambda tile: busy.predict(MODEL, tile, ("foreground",)), tiles))
        for one, other in zip(alone, found, strict=True):
            np.testing.assert_array_equal(one["foreground"], other["foreground"])

    def test_batched_outputs_of_the_default_network_differ_in_the_last_place_at_most(self) -> None:
        from granulo_segmenter.predictor.loaded import load_model
        from granulo_segmenter.predictor.versions import packaged_folder

        model = load_model("default", 1, packaged_folder())
        tiles = np.random.default_rng(0).integers(0, 255, (4, 1, 96, 96, 1), np.uint8)
        together = model.run_together("serving_default", [{"image": tile} for tile in tiles])
        for tile, batched in zip(tiles, together, strict=True):
            alone = model.run("serving_default", {"image": tile})
            assert alone.keys() == batched.keys()
            for name, array in alone.items():
                assert batched[name].shape == array.shape
                # One step of float16 below 1.
                np.testing.assert_allclose(
                    batched[name].astype(np.float32), array.astype(np.float32), atol=2**-11
                )

    def start_as_grandchild(self, base: Path) -> tuple[subprocess.Popen[str], int, str]:
        code = (
            "import subprocess, sys, time\n"
            "child = subprocess.Popen([sys.executable, '-m', "
            f"'granulo_segmenter.predictor.embedded', '--base', {str(base)!r}, "
            "'--poll-s', '0.2'])\n"
            "print(child.pid, flush=True)\n"
            "time.sleep(600)\n"
        )
        parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        return parent, child, json.loads(parent.stdout.readline())["address"]

    def check_reload(self, address: str, base: Path) -> None:
        from tensorflow_serving.apis import model_management_pb2, model_service_pb2_grpc

        request = model_management_pb2.ReloadConfigRequest()
        config = request.config.model_config_list.config.add()
        config.name, config.base_path = "tiny", str(base / "tiny")
        config.model_platform = "tensorflow"
        config.version_labels["stable"] = 1
        with grpc.insecure_channel(address) as channel:
            stub = model_service_pb2_grpc.ModelServiceStub(channel)
            stub.HandleReloadConfigRequest(request, timeout=20)
            labelled = predict_request(version=None)
            labelled.model_spec.version_label = "stable"
            answer = call(address, wire.PREDICT, labelled, "PredictResponse")
            assert answer.model_spec.version.value == 1
            config.version_labels["stable"] = 9
            with pytest.raises(grpc.RpcError) as caught:
                stub.HandleReloadConfigRequest(request, timeout=20)
            assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
            config.base_path = "/etc"
            with pytest.raises(grpc.RpcError) as caught:
                stub.HandleReloadConfigRequest(request, timeout=20)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT

    def wait_until(self, condition: Any) -> None:
        deadline = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def test_health_is_serving(self, served: tuple[str, Path]) -> None:
        from grpc_health.v1 import health_pb2, health_pb2_grpc

        if "GRANULO_TFSERVING_ADDRESS" in os.environ:
            pytest.skip("TensorFlow Serving's health service is its own matter")
        with grpc.insecure_channel(served[0]) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=10)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING

    def test_a_port_in_use_is_told_at_once(self, tmp_path: Path) -> None:
        import socket

        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            done = subprocess.run(
                [sys.executable, "-m", "granulo_segmenter.predictor.embedded", "--base",
                 str(tmp_path), "--listen", f"127.0.0.1:{port}"],
                capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip
        assert done.returncode == 2
        assert f"127.0.0.1:{port}" in done.stderr
        assert "in use" in done.stderr
