# SPDX-License-Identifier: GPL-3.0-or-later
"""What TensorFlow Serving's PredictionService and ModelService owe: conftest.py says who answers.

Codes and the kinds of texts are those of TensorFlow Serving's sources. Where the real server may
differ from the embedded one, the test says so in a comment that begins with "Differs:".
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

CODE = grpc.StatusCode
MODEL = "switching"


@dataclass
class Stubs:
    """The real messages and stubs; ``base`` holds version n of the model with the factor n / 4."""

    predictions: Any
    models: Any
    base: Path
    apis: Any

    def spec(self, version: int | None = None, label: str = "", name: str = MODEL) -> Any:
        spec = self.apis.model_pb2.ModelSpec(name=name)
        if version is not None:
            spec.version.value = version
        if label:
            spec.version_label = label
        return spec

    def predict(self, spec: Any, *, tensor: Any = None, signature: str = "", **more: Any) -> Any:
        import tensorflow as tf

        request = self.apis.predict_pb2.PredictRequest(**more)
        if spec is not None:
            request.model_spec.CopyFrom(spec)
            request.model_spec.signature_name = signature
        array = np.full((1, 4, 6, 1), 255, np.uint8)
        request.inputs["image"].CopyFrom(tensor or tf.make_tensor_proto(array))
        return self.predictions.Predict(request, timeout=30)

    def level(self, spec: Any) -> float:
        """What a fully bright image becomes: which version computed it."""
        import tensorflow as tf

        return float(tf.make_ndarray(self.predict(spec).outputs["foreground"]).mean())

    def status(self, spec: Any) -> dict[int, Any]:
        request = self.apis.get_model_status_pb2.GetModelStatusRequest()
        if spec is not None:
            request.model_spec.CopyFrom(spec)
        answer = self.models.GetModelStatus(request, timeout=30)
        return {item.version: item for item in answer.model_version_status}

    def config(self, name: str = MODEL, folder: str = "", **more: Any) -> Any:
        config_pb2 = self.apis.model_server_config_pb2
        return config_pb2.ModelConfig(
            name=name, base_path=str(self.base / (folder or name)),
            **{"model_platform": "tensorflow", **more},
        )  # fmt: skip

    def reload(self, *configs: Any) -> Any:
        request = self.apis.model_management_pb2.ReloadConfigRequest()
        request.config.model_config_list.config.extend(configs)
        return self.models.HandleReloadConfigRequest(request, timeout=60)

    def policy(self, **choice: Any) -> Any:
        policy_pb2 = self.apis.policy_pb2.FileSystemStoragePathSourceConfig
        return policy_pb2.ServableVersionPolicy(**choice)

    @property
    def everything(self) -> list[Any]:
        """Configuration that serves all versions of all models."""
        every = self.policy(all={})
        return [
            self.config(name, model_version_policy=every) for name in ("tiny", MODEL)
        ]  # fmt: skip

    def until(self, condition: Callable[[], bool]) -> None:
        end_s = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < end_s
            time.sleep(0.1)


@dataclass
class _Apis:
    model_pb2: Any
    predict_pb2: Any
    get_model_status_pb2: Any
    get_model_metadata_pb2: Any
    model_management_pb2: Any
    model_server_config_pb2: Any
    policy_pb2: Any


@pytest.fixture(scope="module")
def stubs(served: tuple[str, Path], save_model: Callable[..., None]) -> Iterator[Stubs]:
    from tensorflow_serving.apis import (
        get_model_metadata_pb2,
        get_model_status_pb2,
        model_management_pb2,
        model_pb2,
        model_service_pb2_grpc,
        predict_pb2,
        prediction_service_pb2_grpc,
    )
    from tensorflow_serving.config import (
        file_system_storage_path_source_pb2,
        model_server_config_pb2,
    )

    address, base = served
    for version in (1, 2, 3):
        if not (base / MODEL / str(version)).exists():
            save_model(base / MODEL / str(version), version / 4)
    with grpc.insecure_channel(address) as channel:
        made = Stubs(
            prediction_service_pb2_grpc.PredictionServiceStub(channel),
            model_service_pb2_grpc.ModelServiceStub(channel),
            base,
            _Apis(
                model_pb2, predict_pb2, get_model_status_pb2, get_model_metadata_pb2,
                model_management_pb2, model_server_config_pb2,
                file_system_storage_path_source_pb2,
            ),
        )  # fmt: skip
        made.reload(*made.everything)
        yield made
        made.reload(*made.everything)


@pytest.fixture
def all_served(stubs: Stubs) -> Iterator[Stubs]:
    """Every version of every model, also after a test that served fewer."""
    yield stubs
    stubs.reload(*stubs.everything)
    stubs.until(lambda: {1, 2, 3} <= set(available(stubs)))


def available(stubs: Stubs, name: str = MODEL) -> list[int]:
    states = stubs.apis.get_model_status_pb2.ModelVersionStatus
    found = stubs.status(stubs.spec(name=name))
    return sorted(v for v, item in found.items() if item.state == states.AVAILABLE)


def refused(action: Callable[[], Any]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        action()
    return caught.value.code(), caught.value.details()


def test_a_version_answers_by_number_and_the_highest_without_one(stubs: Stubs) -> None:
    for version in (1, 2, 3):
        answer = stubs.predict(stubs.spec(version))
        assert answer.model_spec.version.value == version
        assert stubs.level(stubs.spec(version)) == pytest.approx(version / 4, abs=1e-3)
    assert stubs.predict(stubs.spec()).model_spec.version.value == 3


def test_the_answer_names_model_version_and_signature(stubs: Stubs) -> None:
    plain, named = stubs.spec(2), stubs.spec(2)
    answer = stubs.predict(plain)
    assert answer.model_spec.name == MODEL
    assert answer.model_spec.signature_name == "serving_default"
    answer = stubs.predict(named, signature="only_foreground")
    assert answer.model_spec.signature_name == "only_foreground"
    assert set(answer.outputs) == {"foreground"}


def test_rows_of_one_request_are_independent(stubs: Stubs) -> None:
    import tensorflow as tf

    rows = np.stack([np.full((4, 6, 1), level, np.uint8) for level in (0, 51, 255)])
    answer = stubs.predict(stubs.spec(3), tensor=tf.make_tensor_proto(rows))
    found = tf.make_ndarray(answer.outputs["foreground"])
    assert found.shape == (3, 4, 6)
    np.testing.assert_allclose(found.mean(axis=(1, 2)), [0, 0.15, 0.75], atol=1e-3)


def test_numbers_in_fields_are_read_like_numbers_in_bytes(stubs: Stubs) -> None:
    import tensorflow as tf

    tensor = tf.make_tensor_proto(np.zeros((1, 2, 2, 1), np.uint8))
    tensor.tensor_content = b""
    del tensor.int_val[:]
    tensor.int_val.extend([0, 255, 255, 0])
    answer = stubs.predict(stubs.spec(2), tensor=tensor)
    found = tf.make_ndarray(answer.outputs["foreground"])
    np.testing.assert_allclose(found, [[[0, 0.5], [0.5, 0]]], atol=1e-3)


def test_an_output_filter_takes_known_outputs_once(stubs: Stubs) -> None:
    assert set(stubs.predict(stubs.spec(1), output_filter=["distance"]).outputs) == {"distance"}
    code, text = refused(lambda: stubs.predict(stubs.spec(1), output_filter=["rim"]))
    assert code is CODE.INVALID_ARGUMENT
    assert "output tensor alias not found in signature: rim" in text
    code, text = refused(
        lambda: stubs.predict(stubs.spec(1), output_filter=["distance", "distance"])
    )
    assert code is CODE.INVALID_ARGUMENT
    assert "duplicate output tensor alias" in text


def test_unknown_names_are_told_by_kind(stubs: Stubs) -> None:
    def predict(**of: Any) -> tuple[grpc.StatusCode, str]:
        return refused(lambda: stubs.predict(stubs.spec(**of)))

    code, text = predict(name="nobody")
    assert (code, "Servable not found for request: Latest(nobody)" in text) == (
        CODE.NOT_FOUND, True
    )  # fmt: skip
    code, text = predict(version=99)
    assert (code, f"Servable not found for request: Specific({MODEL}, 99)" in text) == (
        CODE.NOT_FOUND, True
    )  # fmt: skip
    code, text = predict(label="nothing")
    assert (code, "Unrecognized servable version label: nothing" in text) == (
        CODE.INVALID_ARGUMENT, True
    )  # fmt: skip
    code, text = refused(lambda: stubs.predict(stubs.spec(1), signature="other"))
    assert (code, 'Serving signature key "other" not found' in text) == (
        CODE.FAILED_PRECONDITION, True
    )  # fmt: skip
    # Differs: the real server says "Missing ModelSpec" here, or that the name is missing.
    assert refused(lambda: stubs.predict(None))[0] is CODE.INVALID_ARGUMENT
    assert predict(name="")[0] is CODE.INVALID_ARGUMENT


def test_unusable_inputs_are_told(stubs: Stubs) -> None:
    import tensorflow as tf

    request = stubs.apis.predict_pb2.PredictRequest(model_spec=stubs.spec(1))
    code, text = refused(lambda: stubs.predictions.Predict(request, timeout=30))
    assert code is CODE.INVALID_ARGUMENT
    assert "input size does not match signature" in text
    short = tf.make_tensor_proto(np.zeros((1, 4, 4, 1), np.uint8))
    short.tensor_content = short.tensor_content[:7]
    negative = tf.make_tensor_proto(np.zeros((1, 4, 4, 1), np.uint8))
    negative.tensor_shape.dim[1].size = -4
    for tensor in (
        tf.make_tensor_proto(np.zeros((1, 4, 4, 1), np.float32)),
        tf.make_tensor_proto(np.zeros((4, 4), np.uint8)),
        tf.make_tensor_proto(np.zeros((1, 4, 4, 3), np.uint8)),
        short,
        negative,
    ):
        code, _ = refused(lambda tensor=tensor: stubs.predict(stubs.spec(1), tensor=tensor))
        assert code is CODE.INVALID_ARGUMENT
    # One value may stand for any shape, and must not fill the memory.
    huge = tf.make_tensor_proto(np.zeros((1, 1, 1, 1), np.uint8))
    huge.tensor_content = b""
    del huge.int_val[:]
    huge.int_val.append(7)
    for dim, size in zip(huge.tensor_shape.dim, (1, 1 << 20, 1 << 20, 1), strict=True):
        dim.size = size
    # Differs: the real server may try to allocate it first.
    code, _ = refused(lambda: stubs.predict(stubs.spec(1), tensor=huge))
    assert code in (CODE.INVALID_ARGUMENT, CODE.RESOURCE_EXHAUSTED)
    assert stubs.level(stubs.spec(1)) == pytest.approx(0.25, abs=1e-3)


def test_a_deadline_that_passed_is_told(stubs: Stubs) -> None:
    import tensorflow as tf

    request = stubs.apis.predict_pb2.PredictRequest(model_spec=stubs.spec(1))
    request.inputs["image"].CopyFrom(tf.make_tensor_proto(np.zeros((1, 512, 512, 1), np.uint8)))
    code, _ = refused(lambda: stubs.predictions.Predict(request, timeout=1e-4))
    assert code is CODE.DEADLINE_EXCEEDED


def test_metadata_is_that_of_the_version_asked_for(stubs: Stubs) -> None:
    metadata_pb2 = stubs.apis.get_model_metadata_pb2

    def ask(spec: Any, *fields: str) -> Any:
        request = metadata_pb2.GetModelMetadataRequest(metadata_field=fields)
        if spec is not None:
            request.model_spec.CopyFrom(spec)
        return stubs.predictions.GetModelMetadata(request, timeout=30)

    for spec, version in ((stubs.spec(2), 2), (stubs.spec(), 3)):
        answer = ask(spec, "signature_def")
        assert answer.model_spec.version.value == version
        found = metadata_pb2.SignatureDefMap()
        assert answer.metadata["signature_def"].Unpack(found)
        assert {"serving_default", "only_foreground"} <= set(found.signature_def)
        signature = found.signature_def["only_foreground"]
        assert set(signature.outputs) == {"foreground"}
        assert signature.method_name == "tensorflow/serving/predict"
    assert refused(lambda: ask(stubs.spec()))[0] is CODE.INVALID_ARGUMENT
    assert refused(lambda: ask(stubs.spec(), "other"))[0] is CODE.INVALID_ARGUMENT
    assert refused(lambda: ask(None, "signature_def"))[0] is CODE.INVALID_ARGUMENT
    assert refused(lambda: ask(stubs.spec(99), "signature_def"))[0] is CODE.NOT_FOUND


def test_status_lists_versions_or_the_one_asked_for(stubs: Stubs) -> None:
    assert available(stubs) == [1, 2, 3]
    assert all(item.status.error_code == 0 for item in stubs.status(stubs.spec()).values())
    assert set(stubs.status(stubs.spec(2))) == {2}
    code, text = refused(lambda: stubs.status(stubs.spec(99)))
    assert (code, f"Could not find version 99 of model {MODEL}" in text) == (CODE.NOT_FOUND, True)
    code, text = refused(lambda: stubs.status(stubs.spec(name="nobody")))
    assert (code, "Could not find any versions of model nobody" in text) == (CODE.NOT_FOUND, True)
    assert refused(lambda: stubs.status(None))[0] is CODE.INVALID_ARGUMENT


def test_a_version_that_cannot_be_loaded_is_told_and_the_others_answer(stubs: Stubs) -> None:
    states = stubs.apis.get_model_status_pb2.ModelVersionStatus
    folder = stubs.base / MODEL / "9"
    folder.mkdir()
    try:
        (folder / "saved_model.pb").write_bytes(b"no model")

        def has_ended() -> bool:
            known = stubs.status(stubs.spec()).get(9)
            return known is not None and known.state == states.END

        # Differs: without --max_num_load_retries=0 the real server says LOADING for minutes.
        stubs.until(has_ended)
        broken = stubs.status(stubs.spec(9))[9]
        assert broken.status.error_code != 0
        assert broken.status.error_message
        assert stubs.predict(stubs.spec()).model_spec.version.value == 3
        assert refused(lambda: stubs.predict(stubs.spec(9)))[0] is CODE.NOT_FOUND
    finally:
        (folder / "saved_model.pb").unlink()
        folder.rmdir()


def test_labels_are_moved_by_a_reload_and_only_to_what_answers(all_served: Stubs) -> None:
    stubs, every = all_served, all_served.policy(all={})

    def label(**labels: int) -> Any:
        config = stubs.config(model_version_policy=every, version_labels=labels)
        return stubs.reload(stubs.config("tiny", model_version_policy=every), config)

    assert label(stable=1, canary=3).status.error_code == 0
    assert stubs.level(stubs.spec(label="stable")) == pytest.approx(0.25, abs=1e-3)
    assert stubs.predict(stubs.spec(label="canary")).model_spec.version.value == 3
    assert set(stubs.status(stubs.spec(label="canary"))) == {3}
    label(stable=2)
    assert stubs.predict(stubs.spec(label="stable")).model_spec.version.value == 2
    code, text = refused(lambda: label(stable=99))
    assert code is CODE.FAILED_PRECONDITION
    assert "which is not currently available for inference" in text
    # What was refused has changed nothing.
    assert stubs.predict(stubs.spec(label="stable")).model_spec.version.value == 2


def test_policies_say_which_versions_are_served(all_served: Stubs) -> None:
    stubs = all_served
    tiny = stubs.config("tiny", model_version_policy=stubs.policy(all={}))
    for policy, wanted in (
        ({"latest": {"num_versions": 2}}, [2, 3]),
        ({"specific": {"versions": [1]}}, [1]),
        ({"all": {}}, [1, 2, 3]),
    ):
        stubs.reload(tiny, stubs.config(model_version_policy=stubs.policy(**policy)))
        stubs.until(lambda wanted=wanted: available(stubs) == wanted)
    # Without a policy it is the highest one alone.
    stubs.reload(tiny, stubs.config())
    stubs.until(lambda: available(stubs) == [3])
    assert refused(lambda: stubs.predict(stubs.spec(1)))[0] is CODE.NOT_FOUND


def test_a_reload_that_makes_no_sense_is_refused_and_changes_nothing(all_served: Stubs) -> None:
    stubs = all_served
    relative = stubs.config()
    relative.base_path = "models/switching"
    for configs in (
        [stubs.config(), stubs.config()],
        [relative],
        [stubs.config(model_platform="")],
    ):
        code, _ = refused(lambda configs=configs: stubs.reload(*configs))
        assert code is CODE.INVALID_ARGUMENT
    empty = stubs.apis.model_management_pb2.ReloadConfigRequest()
    code, _ = refused(lambda: stubs.models.HandleReloadConfigRequest(empty, timeout=30))
    assert code is CODE.INVALID_ARGUMENT
    assert available(stubs) == [1, 2, 3]
    assert available(stubs, "tiny")
