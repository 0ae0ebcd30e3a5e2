# SPDX-License-Identifier: Apache-2.0
"""Images that are segmented within calls, without an operation."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import grpc

from granulo.segmenter.v1 import segmenter_service_pb2 as pb
from granulo.segmenter.v1 import segmenter_service_pb2_grpc as rpc
from granulo_client import names
from granulo_client.connection import Connection, Source
from granulo_client.errors import GranuloClientError
from granulo_client.retries import Patience

_TIMEOUT_S = 300.0
_STREAM_TIMEOUT_S = 3600.0

Answer = tuple[int, pb.SegmentImageResponse | pb.SegmentImagesError]
"""Place of the image in the request, and its result or what was wrong with it."""


class ImageCalls(Connection):
    """Part of `Client`: answers at once, for programs that have an image and want its labels."""

    def segment_image(
        self,
        source: Source,
        *,
        model: str = "",
        options: pb.SegmentationOptions | None = None,
        timeout_s: float = _TIMEOUT_S,
    ) -> pb.SegmentImageResponse:
        """Segment one image; where the server is busy, it is asked again when it says.

        Parameters
        ----------
        source : Source
        model : str
            As for `Client.segment`.
        options : SegmentationOptions, optional
        timeout_s : float
            For everything, waiting included; the server stops its work then.
        """
        request = self._image_request(source, model, options)
        stub = rpc.SegmenterServiceStub(self.channels.to("segmenter"))
        return self._calls.call(stub.SegmentImage, request, "segmenter", timeout_s=timeout_s)

    def segment_images(
        self,
        sources: Sequence[Source],
        *,
        model: str = "",
        options: pb.SegmentationOptions | None = None,
        timeout_s: float = _STREAM_TIMEOUT_S,
    ) -> Iterator[Answer]:
        """Segment images through one stream.

        Answers come in the order of completion; an image that cannot be segmented does not end the
        others. Images are uploaded as the server takes them. Closing the iterator stops the work.

        Parameters
        ----------
        sources : sequence of Source
        model, options
            As for `segment_image`.
        timeout_s : float
            For everything.

        Yields
        ------
        Answer
        """
        unanswered = set(range(len(sources)))
        patience = Patience(timeout_s)
        stub = rpc.SegmenterServiceStub(self.channels.to("segmenter"))
        while unanswered:
            # What has its answer is not sent again.
            outgoing = _Outgoing(
                {index: sources[index] for index in sorted(unanswered)},
                lambda source: self._image_request(source, model, options),
            )
            call = stub.SegmentImages(iter(outgoing), timeout=patience.left_s)
            try:
                for answer in call:
                    index = int(answer.correlation_id)
                    unanswered.discard(index)
                    yield index, answer.error if answer.HasField("error") else answer.response
            except grpc.RpcError as error:
                patience.pause(self.channels.failed(error, "segmenter"))
            else:
                if outgoing.error is not None:
                    raise outgoing.error
                if unanswered:
                    text = f"The stream ended without {len(unanswered)} answers."
                    raise GranuloClientError(text)
            finally:
                call.cancel()

    def _image_request(
        self, source: Source, model: str, options: pb.SegmentationOptions | None
    ) -> pb.SegmentImageRequest:
        request = pb.SegmentImageRequest(
            model=names.model_or_version(model) if model else "",
            artifact=self._artifact(source, "segmenter"),
        )
        if options is not None:
            request.options.CopyFrom(options)
        return request


class _Outgoing:
    """Requests of a stream, made as they are sent; keeps what went wrong with making them.

    grpc, which iterates, would only say that something was wrong.
    """

    def __init__(
        self,
        sources: Mapping[int, Source],
        request_of: Callable[[Source], pb.SegmentImageRequest],
    ) -> None:
        self._sources = sources
        self._request_of = request_of
        self.error: Exception | None = None

    def __iter__(self) -> Iterator[pb.SegmentImagesRequest]:
        try:
            for index, source in self._sources.items():
                request = self._request_of(source)
                yield pb.SegmentImagesRequest(correlation_id=str(index), request=request)
        except Exception as error:
            self.error = error
