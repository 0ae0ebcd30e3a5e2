# SPDX-License-Identifier: GPL-3.0-or-later
"""The segmenter's side of ``tensorflow.serving.PredictionService``."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

import grpc
import numpy as np
from numpy.typing import NDArray

from granulo_core.errors import GranuloError, Reason
from granulo_segmenter.domain.model import ServedModel
from granulo_segmenter.predictor import wire

SIGNATURE = "serving_default"
_INPUT = "image"
_MESSAGE_BYTES = 32 << 20
_IN_FLIGHT = 2
"""Tiles of one image on their way at once: while one is computed the next is packed."""
_PAUSE_S = 0.25
# The server is (re)starting, or has not loaded a version that was promoted a moment ago.
_TRANSIENT = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND}
_SIGNATURE_CODES = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION}


class Predictor:
    """Sends tiles to a model server and brings its outputs back.

    Parameters
    ----------
    address : str
        ``host:port`` of the model server.
    timeout_s : float
        For one tile, computing included.
    patience_s : float
        How long a server that does not answer, or does not have the version yet, is asked again.
    in_flight : int
        Tiles of all callers together that are on their way at once.
    """

    def __init__(
        self,
        address: str,
        *,
        timeout_s: float = 120.0,
        patience_s: float = 60.0,
        in_flight: int = _IN_FLIGHT,
    ) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._patience_s = patience_s
        self._channel = grpc.insecure_channel(
            address,
            options=[
                ("grpc.max_receive_message_length", _MESSAGE_BYTES),
                ("grpc.max_send_message_length", _MESSAGE_BYTES),
                ("grpc.initial_reconnect_backoff_ms", 100),
                ("grpc.max_reconnect_backoff_ms", 1000),
            ],
        )
        self._predict: Any = self._channel.unary_unary(
            wire.PREDICT,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=lambda data: wire.parse("PredictResponse", data),
        )
        self._status: Any = self._channel.unary_unary(
            wire.GET_MODEL_STATUS,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=lambda data: wire.parse("GetModelStatusResponse", data),
        )
        self._threads = ThreadPoolExecutor(in_flight, thread_name_prefix="predict")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Drop waiting tiles and the channel."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._channel.close()

    def predict(
        self, model: ServedModel, tile: NDArray[np.uint8], outputs: Sequence[str]
    ) -> dict[str, NDArray[np.float32]]:
        """Predict one tile.

        Parameters
        ----------
        model : ServedModel
        tile : (H, W) uint8
            Sides are multiples of the model's stride.
        outputs : sequence of str
            Names of the wanted outputs.

        Returns
        -------
        dict of str to (H, W) float32

        Raises
        ------
        GranuloError
            MODEL_SERVER_UNAVAILABLE when no answer came in time, MODEL_SIGNATURE_MISMATCH when the
            model takes or gives something else, DEADLINE_PASSED when one tile took too long.
        """
        request = wire.new(
            "PredictRequest",
            model_spec=self._spec(model, SIGNATURE),
            inputs=[
                wire.new("InputsEntry", key=_INPUT, value=wire.to_tensor(tile[None, :, :, None]))
            ],
            output_filter=list(outputs),
        )
        response = self._call(self._predict, request, model)
        found = {entry.key: entry.value for entry in response.outputs}
        return {name: self._output(found, name, tile.shape, model) for name in outputs}

    def predict_many(
        self, model: ServedModel, tiles: Iterable[NDArray[np.uint8]], outputs: Sequence[str]
    ) -> Iterator[dict[str, NDArray[np.float32]]]:
        """Predict tiles in order, a few at once; closing the iterator drops the rest."""
        waiting: deque[Future[dict[str, NDArray[np.float32]]]] = deque()
        try:
            for tile in tiles:
                waiting.append(self._threads.submit(self.predict, model, tile, outputs))
                if len(waiting) >= _IN_FLIGHT:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

    def wait_until_available(
        self, model: ServedModel, check: Callable[[], None] = lambda: None
    ) -> None:
        """Wait until the server has loaded a version, at most as long as the patience lasts.

        Parameters
        ----------
        model : ServedModel
        check : callable
            Called while waiting; may raise to end it.

        Raises
        ------
        GranuloError
            MODEL_SERVER_UNAVAILABLE, or MODEL_SIGNATURE_MISMATCH for a version that cannot be
            loaded.
        """
        request = wire.new("GetModelStatusRequest", model_spec=self._spec(model))
        give_up = time.monotonic() + self._patience_s
        while not self.is_available(model):
            check()
            self._refuse_broken(model)
            if time.monotonic() >= give_up:
                # The last word of the server is the best explanation.
                try:
                    self._status(request, timeout=5.0)
                except grpc.RpcError as error:
                    raise self._translate(error, model) from error
                raise self._unavailable("is still loading the model; try again", model)
            time.sleep(_PAUSE_S)

    def is_available(self, model: ServedModel, timeout_s: float = 5.0) -> bool:
        """Tell whether the server has this version loaded now."""
        request = wire.new("GetModelStatusRequest", model_spec=self._spec(model))
        try:
            response = self._status(request, timeout=timeout_s)
        except grpc.RpcError:
            return False
        return any(
            status.version == model.version and status.state == wire.STATE_AVAILABLE
            for status in response.model_version_status
        )

    def _spec(self, model: ServedModel, signature: str = "") -> Any:
        version = wire.new("Int64Value", value=model.version)
        return wire.new("ModelSpec", name=model.name, version=version, signature_name=signature)

    def _call(self, method: Any, request: Any, model: ServedModel) -> Any:
        give_up = time.monotonic() + self._patience_s
        while True:
            try:
                return method(request, timeout=self._timeout_s)
            except grpc.RpcError as error:
                code = error.code()
                if code not in _TRANSIENT or time.monotonic() >= give_up:
                    raise self._translate(error, model) from error
                if code is grpc.StatusCode.NOT_FOUND:
                    self._refuse_broken(model)
            time.sleep(_PAUSE_S)

    def _refuse_broken(self, model: ServedModel) -> None:
        """Waiting is in vain when the server has tried to load the version and could not."""
        request = wire.new("GetModelStatusRequest", model_spec=self._spec(model))
        try:
            response = self._status(request, timeout=5.0)
        except grpc.RpcError:
            return
        for status in response.model_version_status:
            if status.state == wire.STATE_END and status.status.error_code:
                raise GranuloError(
                    Reason.MODEL_SIGNATURE_MISMATCH,
                    f"The model server at {self._address} cannot load {model}: "
                    f"{status.status.error_message}. Export and promote the version again.",
                    metadata={"address": self._address, "model": model.name},
                )

    def _translate(self, error: grpc.RpcError, model: ServedModel) -> GranuloError:
        code, details = error.code(), error.details() or ""
        metadata = {"address": self._address, "model": model.name, "version": str(model.version)}
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return GranuloError(
                Reason.DEADLINE_PASSED,
                f"The model server at {self._address} did not finish a tile within "
                f"{self._timeout_s:g} s; use a smaller tile_px or give it more cores.",
                metadata=metadata,
            )
        if code in _SIGNATURE_CODES:
            return GranuloError(
                Reason.MODEL_SIGNATURE_MISMATCH,
                f"{model} on {self._address} refused the tile: {details}. It needs the signature "
                f"{SIGNATURE} with the input {_INPUT} (uint8, N × H × W × 1).",
                metadata=metadata,
            )
        problem = (
            f"does not serve {model} (after {self._patience_s:g} s); is it promoted, and does the "
            "model sync run?"
            if code is grpc.StatusCode.NOT_FOUND
            else f"does not answer ({code.name}: {details}); is it running? Check "
            "GRANULO_MODEL_SERVER, or start it with `granulo up`."
        )
        return self._unavailable(problem, model)

    def _unavailable(self, problem: str, model: ServedModel) -> GranuloError:
        return GranuloError(
            Reason.MODEL_SERVER_UNAVAILABLE,
            f"The model server at {self._address} {problem}",
            metadata={"address": self._address, "model": model.name, "version": str(model.version)},
            retry_after_s=5.0,
        )

    def _output(
        self,
        found: Mapping[str, Any],
        name: str,
        shape: tuple[int, ...],
        model: ServedModel,
    ) -> NDArray[np.float32]:
        problem = f"it has no output {name}"
        if name in found:
            try:
                array = wire.from_tensor(found[name])
            except ValueError as error:
                problem = f"its output {name} is unusable: {error}"
            else:
                if array.shape == (1, *shape):
                    return np.asarray(array[0], dtype=np.float32)
                problem = f"its output {name} has shape {array.shape} for a tile of {shape}"
        raise GranuloError(
            Reason.MODEL_SIGNATURE_MISMATCH,
            f"{model} on {self._address} has another signature than the segmenter needs: "
            f"{problem}. Train and promote it with this version of Granulo.",
            metadata={"address": self._address, "model": model.name, "output": name},
        )
