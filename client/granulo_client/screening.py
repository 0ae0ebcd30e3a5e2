# SPDX-License-Identifier: Apache-2.0
"""Screening: micrographs in as they are taken, the running distribution and "enough?" out."""

import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from queue import SimpleQueue

import grpc
from google.rpc import code_pb2

from granulo.analyzer.v1 import analyzer_service_pb2 as pb
from granulo.analyzer.v1 import analyzer_service_pb2_grpc as rpc
from granulo.type.v1 import artifact_pb2
from granulo_client import names
from granulo_client.connection import Connection, PixelSizeNm, Source, pixel_size_message
from granulo_client.errors import GranuloClientError, from_rpc_error

_Queue = SimpleQueue[pb.ScreenMicrographsResponse | Exception | None]


class ScreeningCalls(Connection):
    """Part of `Client`: a measurement that runs while the microscope does."""

    def screen(
        self,
        sources: Iterable[Source],
        *,
        model: str = "",
        pixel_size_nm: PixelSizeNm | None = None,
        settings: pb.AnalysisSettings | None = None,
        min_images: int = 0,
        timeout_s: float | None = None,
    ) -> Generator[pb.ScreenMicrographsResponse, None, None]:
        """Screen micrographs through one stream.

        Parameters
        ----------
        sources : iterable of Source
            Taken one by one, as the server has room; it may wait for the next micrograph as long as
            it likes. Files are uploaded. One of a name that was counted is not counted again.
        model : str
            As for `Client.segment`.
        pixel_size_nm : float or (float, float), optional
            Goes before the files' own.
        settings : AnalysisSettings, optional
            Counting rule, confidence level, target precision.
        min_images : int
            No advice to stop before so many; 0 takes the server's.
        timeout_s : float, optional
            For everything; by default the stream lasts as long as there are sources.

        Yields
        ------
        ScreenMicrographsResponse
            In the order of completion, `correlation_id` being the path or the artifact's name. What
            is wrong with one micrograph stands in its `error` and does not end the others. Closing
            the iterator ends the stream.

        Raises
        ------
        GranuloClientError
            What is wrong with the settings, or with the server.
        """
        first = pb.ScreeningSettings(
            model=names.model_or_version(model) if model else "",
            pixel_size=None if pixel_size_nm is None else pixel_size_message(pixel_size_nm),
            analysis=settings,
            min_images=min_images,
        )
        answers: _Queue = SimpleQueue()
        stub = rpc.AnalyzerServiceStub(self.channels.to("analyzer"))
        call = stub.ScreenMicrographs(
            _outgoing(first, sources, self._screened, answers), timeout=timeout_s
        )

        def read() -> None:
            try:
                for answer in call:
                    answers.put(answer)
            except grpc.RpcError as error:
                answers.put(from_rpc_error(error, self.channels.address("analyzer")))
            finally:
                answers.put(None)

        threading.Thread(target=read, name="screening", daemon=True).start()
        try:
            while (found := answers.get()) is not None:
                if isinstance(found, Exception):
                    raise found
                yield found
        finally:
            call.cancel()

    def _screened(self, source: Source) -> pb.ScreenedMicrograph:
        artifact = self._artifact(source, "analyzer")
        return pb.ScreenedMicrograph(correlation_id=_name(source), artifact=artifact)


def _outgoing(
    settings: pb.ScreeningSettings,
    sources: Iterable[Source],
    micrograph_of: Callable[[Source], pb.ScreenedMicrograph],
    answers: _Queue,
) -> Iterator[pb.ScreenMicrographsRequest]:
    """Requests, made as they are sent; what is wrong with making one is its answer.

    What is wrong with the sources themselves ends the stream: grpc, which iterates, would not say
    what it was.
    """
    yield pb.ScreenMicrographsRequest(settings=settings)
    try:
        for source in sources:
            try:
                micrograph = micrograph_of(source)
            except GranuloClientError as error:
                answers.put(_failure(_name(source), error))
            else:
                yield pb.ScreenMicrographsRequest(micrograph=micrograph)
    except Exception as error:
        answers.put(error)


def _name(source: Source) -> str:
    if isinstance(source, artifact_pb2.Artifact):
        return source.display_name or source.uri
    return str(Path(source))


def _failure(name: str, error: GranuloClientError) -> pb.ScreenMicrographsResponse:
    answer = pb.ScreenMicrographsResponse(correlation_id=name)
    answer.error.code = code_pb2.Code.Value(error.code)
    answer.error.message = error.message
    answer.error.reason = error.reason
    return answer
