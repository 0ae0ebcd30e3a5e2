# SPDX-License-Identifier: GPL-3.0-or-later
"""The segmenter's side of ``tensorflow.serving.PredictionService``."""

import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from types import TracebackType
from typing import Any, Self

import grpc
import numpy as np
from numpy.typing import NDArray

from granulo_core.errors import GranuloError, Reason
from granulo_core.rpc.channel import open_channel
from granulo_core.rpc.lifetime import ENDLESS, CallLifetime
from granulo_core.security.settings import SecuritySettings
from granulo_segmenter.domain.model import ServedModel
from granulo_segmenter.predictor import wire

SIGNATURE = "serving_default"
_INPUT = "image"
_MESSAGE_BYTES = 32 << 20
_OPTIONS = {
    "grpc.max_receive_message_length": _MESSAGE_BYTES,
    "grpc.max_send_message_length": _MESSAGE_BYTES,
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 1000,
}
_IN_FLIGHT = 2
"""Tiles of one image on their way at once: while one is computed the next is packed."""
_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 2.0
_STATUS_S = 2.0
_LOOK_S = 0.1
"""How often it is looked whether somebody still waits for a tile that is being computed."""
# The server is (re)starting, its queue is full, or it has not loaded a version that was promoted a
# moment ago.
_TRANSIENT = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.NOT_FOUND,
}
_SIGNATURE_CODES = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION}


class Predictor:
    """Sends tiles to a model server and brings its outputs back.

    Parameters
    ----------
    address : str
        ``host:port`` of the model server.
    security : SecuritySettings, optional
        Authority and certificate for TLS; plaintext where absent.
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
        security: SecuritySettings | None = None,
        *,
        timeout_s: float = 120.0,
        patience_s: float = 60.0,
        in_flight: int = _IN_FLIGHT,
    ) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._patience_s = patience_s
        # Model servers know no tokens, and ours is none of their business.
        tokenless = security and security.model_copy(update={"auth_token_file": ""})
        self._channel = open_channel(address, tokenless, _OPTIONS)
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
        self,
        model: ServedModel,
        tile: NDArray[np.uint8],
        outputs: Sequence[str],
        lifetime: CallLifetime = ENDLESS,
    ) -> dict[str, NDArray[np.float32]]:
        """Predict one tile.

        Parameters
        ----------
        model : ServedModel
        tile : (H, W) uint8
            Sides are multiples of the model's stride.
        outputs : sequence of str
            Names of the wanted outputs.
        lifetime : CallLifetime
            The server is told its deadline, and stops when it ends.

        Returns
        -------
        dict of str to (H, W) float32

        Raises
        ------
        GranuloError
            MODEL_SERVER_UNAVAILABLE when no answer came in time, MODEL_SIGNATURE_MISMATCH when the
            model takes or gives something else, DEADLINE_PASSED when one tile took too long,
            OPERATION_CANCELLED when nobody waits for it any more.
        """
        request = wire.new(
            "PredictRequest",
            model_spec=self._spec(model, SIGNATURE),
            inputs=[
                wire.new("InputsEntry", key=_INPUT, value=wire.to_tensor(tile[None, :, :, None]))
            ],
            output_filter=list(outputs),
        )
        response = self._call(request, model, lifetime)
        found = {entry.key: entry.value for entry in response.outputs}
        return {name: self._output(found, name, tile.shape, model) for name in outputs}

    def predict_many(
        self,
        model: ServedModel,
        tiles: Iterable[NDArray[np.uint8]],
        outputs: Sequence[str],
        lifetime: CallLifetime = ENDLESS,
    ) -> Iterator[dict[str, NDArray[np.float32]]]:
        """Predict tiles in order, a few at once; closing the iterator drops the rest."""
        waiting: deque[Future[dict[str, NDArray[np.float32]]]] = deque()
        try:
            for tile in tiles:
                lifetime.check()
                # So that log lines and spans of the threads are those of the caller.
                run = copy_context().run
                waiting.append(
                    self._threads.submit(run, self.predict, model, tile, outputs, lifetime)
                )
                if len(waiting) >= _IN_FLIGHT:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
            lifetime.check()
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

    def is_available(self, model: ServedModel, timeout_s: float = _STATUS_S) -> bool:
        """Tell whether the server has this version loaded now."""
        return any(
            status.version == model.version and status.state == wire.STATE_AVAILABLE
            for status in self._states(self._spec(model), timeout_s)
        )

    def load_error(self, model: ServedModel) -> str:
        """Why the server could not load this version; empty where it could, or has not tried."""
        for status in self._states(self._spec(model)):
            if status.state == wire.STATE_END and status.status.error_code:
                return str(status.status.error_message) or "it does not say why"
        return ""

    def loaded_versions(self, name: str) -> list[int]:
        """Versions of a model that the server has loaded now, the newest first."""
        found = [
            int(status.version)
            for status in self._states(wire.new("ModelSpec", name=name))
            if status.state == wire.STATE_AVAILABLE
        ]
        return sorted(found, reverse=True)

    def _states(self, spec: Any, timeout_s: float = _STATUS_S) -> Sequence[Any]:
        """``ModelVersionStatus`` messages; none where the server does not answer."""
        request = wire.new("GetModelStatusRequest", model_spec=spec)
        try:
            return list(self._status(request, timeout=timeout_s).model_version_status)
        except grpc.RpcError:
            return []

    def _spec(self, model: ServedModel, signature: str = "") -> Any:
        version = wire.new("Int64Value", value=model.version)
        return wire.new(
            "ModelSpec", name=model.server_name, version=version, signature_name=signature
        )

    def _call(self, request: Any, model: ServedModel, lifetime: CallLifetime) -> Any:
        give_up_s = time.monotonic() + self._patience_s
        pause_s = _PAUSE_S
        while True:
            lifetime.check()
            try:
                return self._answer(request, lifetime)
            except grpc.RpcError as error:
                code = error.code()
                if code is grpc.StatusCode.DEADLINE_EXCEEDED:
                    lifetime.check()
                if code not in _TRANSIENT or time.monotonic() >= give_up_s:
                    raise self._translate(error, model) from error
                if code is grpc.StatusCode.NOT_FOUND:
                    self._refuse_broken(model)
            # Not all callers at the same moment.
            time.sleep(min(pause_s * random.uniform(0.5, 1.0), lifetime.left_s))
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _answer(self, request: Any, lifetime: CallLifetime) -> Any:
        """One attempt; it is taken back as soon as nobody waits for it."""
        call = self._predict.future(request, timeout=min(self._timeout_s, lifetime.left_s))
        while True:
            try:
                return call.result(timeout=_LOOK_S)
            except grpc.FutureTimeoutError:
                if lifetime.is_over:
                    call.cancel()
                lifetime.check()

    def _refuse_broken(self, model: ServedModel) -> None:
        """Waiting is in vain when the server has tried to load the version and could not."""
        if problem := self.load_error(model):
            raise GranuloError(
                Reason.MODEL_SIGNATURE_MISMATCH,
                f"The model server at {self._address} cannot load {model}: {problem}. Export and "
                "promote the version again.",
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
