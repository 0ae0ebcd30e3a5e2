# SPDX-License-Identifier: GPL-3.0-or-later
"""ScreenMicrographs: micrographs segmented and measured as they come, and when to stop."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

from granulo.analyzer.v1 import analyzer_service_pb2 as pb
from granulo_analyzer import convert_screening as convert
from granulo_analyzer import inputs
from granulo_analyzer.domain.ensemble import Counted, LengthUnit, MeasuredImage, column_of, unit_of
from granulo_analyzer.domain.morphology import measure
from granulo_analyzer.domain.sequential import Look, RunningDistribution
from granulo_analyzer.domain.statistics import Distribution
from granulo_analyzer.segmenting import Metadata, Segmenting
from granulo_analyzer.settings import AnalyzerSettings
from granulo_core.errors import FieldViolation, GranuloError, Reason, invalid_fields
from granulo_core.imaging.reading.isolated import IsolatedReader, Read
from granulo_core.rpc.lifetime import CallLifetime
from granulo_core.rpc.required import missing_fields
from granulo_core.rpc.streams import answered
from granulo_core.store.port import ObjectStore

_RETRY_S = 10.0


class Screener:
    """Answers streams of micrographs.

    Parameters
    ----------
    store : ObjectStore
        Which the segmenter writes to, too.
    settings : AnalyzerSettings
    reader : IsolatedReader
        Reads the micrographs once more, to measure them.
    """

    def __init__(
        self, store: ObjectStore, settings: AnalyzerSettings, reader: IsolatedReader
    ) -> None:
        self._store = store
        self._reader = reader
        self._settings = settings
        self._segmenting = Segmenting(settings)
        self._places = threading.BoundedSemaphore(settings.max_screenings)

    def stream(
        self,
        requests: Iterator[pb.ScreenMicrographsRequest],
        lifetime: CallLifetime,
        metadata: Metadata,
    ) -> Iterator[pb.ScreenMicrographsResponse]:
        """Screen one stream; answers in order of completion.

        Parameters
        ----------
        requests : iterator
            The settings, then micrographs.
        lifetime : CallLifetime
        metadata : sequence of (str, str)
            For calls that are made on behalf of this one.

        Raises
        ------
        GranuloError
            FIELD_INVALID for unusable settings, SEGMENTER_UNAVAILABLE where no segmenter is known,
            TOO_MANY_STREAMS. What is wrong with a micrograph is in its answer.
        """
        self._segmenting.check()
        first = next(requests, None)
        if first is None:
            return
        if first.WhichOneof("content") != "settings":
            text = "must be the first message of the stream, once; send it before any micrograph"
            raise invalid_fields([FieldViolation("settings", text)])
        settings = convert.screening(first.settings)
        if not self._places.acquire(blocking=False):
            raise GranuloError(
                Reason.TOO_MANY_STREAMS,
                f"{self._settings.max_screenings} screenings are running here; try again later.",
                retry_after_s=_RETRY_S,
            )
        try:
            one = _Screening(
                self._store,
                self._settings,
                self._segmenting,
                settings,
                lifetime,
                metadata,
                partial(self._reader.run, check=lifetime.check),
            )
            yield from answered(
                requests,
                one.answer,
                lifetime,
                in_flight=self._settings.screening_in_flight,
                name="screening",
            )
        finally:
            self._places.release()


@dataclass(frozen=True)
class _Counted:
    """What is kept of a micrograph."""

    distributions: tuple[Distribution, ...]
    particle_count: int


class _Screening:
    """One stream."""

    def __init__(
        self,
        store: ObjectStore,
        server: AnalyzerSettings,
        segmenting: Segmenting,
        settings: convert.Screened,
        lifetime: CallLifetime,
        metadata: Metadata,
        read: Read,
    ) -> None:
        self._store = store
        self._server = server
        self._segmenting = segmenting
        self._settings = settings
        self._lifetime = lifetime
        self._metadata = metadata
        self._read = read
        self._lock = threading.Lock()
        self._seen: dict[str, Future[_Counted]] = {}
        # The first micrograph decides on the unit of all.
        self._running: RunningDistribution | None = None
        self._is_known = False
        self._look: Look | None = None

    def answer(self, request: pb.ScreenMicrographsRequest) -> pb.ScreenMicrographsResponse:
        """Answer one message; what is wrong with it does not end the others."""
        name = request.micrograph.correlation_id
        try:
            if request.WhichOneof("content") != "micrograph":
                text = "is required: settings stand in the first message of the stream only"
                raise invalid_fields([FieldViolation("micrograph", text)])
            if violations := missing_fields(request):
                raise invalid_fields(violations)
            found = self._once(request.micrograph)
            assert self._look is not None  # there is one since the first micrograph was counted
            return convert.answer(name, found.distributions, found.particle_count, self._look)
        except GranuloError as error:
            return convert.failure(name, error, self._look)
        except Exception as error:
            defect = GranuloError(
                Reason.INTERNAL_ERROR,
                f"The micrograph {name} met a defect of Granulo ({type(error).__name__}: {error}).",
            )
            return convert.failure(name, defect, self._look)

    def _once(self, micrograph: pb.ScreenedMicrograph) -> _Counted:
        """Count a micrograph, unless one of its name was; a failed one may come again."""
        while True:
            with self._lock:
                earlier = self._seen.get(micrograph.correlation_id)
                if earlier is None or (earlier.done() and earlier.exception()):
                    own: Future[_Counted] = Future()
                    self._seen[micrograph.correlation_id] = own
                    break
            if earlier.exception() is None:  # waits for it
                return earlier.result()
        try:
            own.set_result(self._count(micrograph))
        except BaseException as error:
            own.set_exception(error)
            raise
        return own.result()

    def _count(self, micrograph: pb.ScreenedMicrograph) -> _Counted:
        request = convert.segment_request(micrograph, self._settings)
        response = self._segmenting.segment(request, self._lifetime, self._metadata)
        if response.further_pages:
            text = (
                f"has {1 + len(response.further_pages)} pages; a field of view is one image a file:"
                " save the pages as files"
            )
            raise invalid_fields([FieldViolation("micrograph", text)])
        job = convert.measure_job(micrograph, response.result, self._server.max_image_px)
        item = inputs.load(self._store, job, self._read)
        self._lifetime.check()
        table = measure(item.labels, pixel_size_nm=item.pixel_size_nm, confidence=item.confidence)
        height, width = item.labels.shape
        image = MeasuredImage(job.name, width, height, item.pixel_size_nm, table.columns)
        analysis = self._settings.analysis
        counted = Counted.of(image, analysis.rule, analysis.min_confidence)
        unit: LengthUnit = "px" if item.pixel_size_nm is None else "nm"
        summary = counted.summary(unit)
        with self._lock:
            running = self._running_in(item.pixel_size_nm is not None, job.name)
            self._look = running.add(counted.column(column_of("ecd", unit)), counted.weights)
        return _Counted(tuple(summary.distributions.values()), summary.listed)

    def _running_in(self, is_known: bool, name: str) -> RunningDistribution:
        if self._running is None:
            unit = unit_of("ecd", "nm" if is_known else "px")
            self._running = RunningDistribution(
                self._settings.analysis, unit, self._settings.min_images
            )
            self._is_known = is_known
        if is_known != self._is_known:
            text = (
                f"is {'known' if is_known else 'unknown'} for {name}, unlike for the micrographs "
                "before it, and lengths in nm and in pixels cannot be counted together; give the "
                "pixel size in the settings"
            )
            raise invalid_fields([FieldViolation("settings.pixel_size", text)])
        return self._running
