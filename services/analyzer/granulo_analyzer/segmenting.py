# SPDX-License-Identifier: GPL-3.0-or-later
"""The segmenter as the analyzer calls it: one image at a time, patient with one that is busy."""

import random
import threading
import time
from collections.abc import Sequence
from typing import Any

import grpc
from grpc_status import rpc_status

from granulo.segmenter.v1 import segmenter_service_pb2 as pb
from granulo.segmenter.v1 import segmenter_service_pb2_grpc as rpc
from granulo_analyzer.settings import AnalyzerSettings
from granulo_core.errors import Code, GranuloError, Reason
from granulo_core.rpc.channel import open_channel
from granulo_core.rpc.lifetime import CallLifetime
from granulo_core.rpc.status import from_status

Metadata = Sequence[tuple[str, str]]

_LOOK_S = 0.2
"""How often is looked whether somebody still waits."""
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
_GROWTH = 1.5


class Segmenting:
    """Calls the segmenter that the settings name.

    Parameters
    ----------
    settings : AnalyzerSettings
    """

    def __init__(self, settings: AnalyzerSettings) -> None:
        self._settings = settings
        self._making = threading.Lock()
        self._stub: Any = None

    def check(self) -> None:
        """Raise SEGMENTER_UNAVAILABLE where no segmenter is named."""
        if not self._settings.segmenter_address:
            raise GranuloError(
                Reason.SEGMENTER_UNAVAILABLE,
                "This analyzer knows no segmenter; start it with "
                "GRANULO_SEGMENTER_ADDRESS=HOST:PORT.",
            )

    def segment(
        self, request: pb.SegmentImageRequest, lifetime: CallLifetime, metadata: Metadata
    ) -> pb.SegmentImageResponse:
        """Segment one image.

        A busy segmenter is asked again when it says, until `screening_timeout_s` is over; one that
        does not answer for `segmenter_patience_s`.

        Parameters
        ----------
        request : SegmentImageRequest
        lifetime : CallLifetime
            Of the call that this one is made for.
        metadata : sequence of (str, str)
            With which its caller has its rights at the segmenter, too.

        Raises
        ------
        GranuloError
            What the segmenter says of the image; SEGMENTER_UNAVAILABLE, SERVER_BUSY or
            DEADLINE_PASSED where it says nothing; OPERATION_CANCELLED when nobody waits any more.
        """
        started_s = time.monotonic()
        pause_s = _FIRST_PAUSE_S
        while True:
            left_s = self._settings.screening_timeout_s - (time.monotonic() - started_s)
            try:
                return self._call(request, min(left_s, lifetime.left_s), lifetime, metadata)
            except GranuloError as error:
                waited_s = time.monotonic() - started_s
                if error.code is Code.UNAVAILABLE:
                    limit_s = self._settings.segmenter_patience_s
                elif error.code is Code.RESOURCE_EXHAUSTED:
                    limit_s = self._settings.screening_timeout_s
                else:
                    raise
                # Drawn at random, so that images that were refused together come back apart.
                wait_s = max(error.retry_after_s or 0.0, pause_s) * random.uniform(1.0, 1.5)
                if waited_s + wait_s > limit_s:
                    raise
            _sleep(wait_s, lifetime)
            pause_s = min(pause_s * _GROWTH, _LONGEST_PAUSE_S)

    def _call(
        self,
        request: pb.SegmentImageRequest,
        timeout_s: float,
        lifetime: CallLifetime,
        metadata: Metadata,
    ) -> pb.SegmentImageResponse:
        lifetime.check()
        call = self._segmenter().SegmentImage.future(
            request, timeout=max(timeout_s, 0.0), metadata=metadata
        )
        while True:
            try:
                answer: pb.SegmentImageResponse = call.result(timeout=_LOOK_S)
            except grpc.FutureTimeoutError:
                if lifetime.is_over:
                    call.cancel()
                    lifetime.check()
            except grpc.RpcError as error:
                raise self._error_of(error) from error
            else:
                return answer

    def _segmenter(self) -> Any:
        self.check()
        with self._making:
            if self._stub is None:
                channel = open_channel(self._settings.segmenter_address, self._settings)
                self._stub = rpc.SegmenterServiceStub(channel)
            return self._stub

    def _error_of(self, error: grpc.RpcError) -> GranuloError:
        call: Any = error  # errors of stubs are calls too
        status = rpc_status.from_call(call)
        if status is not None:
            return from_status(status)
        if call.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            return GranuloError(
                Reason.DEADLINE_PASSED, "The segmenter took too long for the micrograph."
            )
        if call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
            return GranuloError(Reason.SERVER_BUSY, "The segmenter has no place for more calls.")
        return GranuloError(
            Reason.SEGMENTER_UNAVAILABLE,
            f"No segmenter answers at {self._settings.segmenter_address} ({call.details()}); send "
            "the micrograph again when it does.",
        )


def _sleep(seconds: float, lifetime: CallLifetime) -> None:
    end_s = time.monotonic() + seconds
    while (left_s := end_s - time.monotonic()) > 0:
        lifetime.check()
        time.sleep(min(_LOOK_S, left_s))
