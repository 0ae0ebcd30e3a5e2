# SPDX-License-Identifier: GPL-3.0-or-later
"""Images that are segmented within a call: one at a time, or a stream with bounded in-flight."""

import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from granulo.segmenter.v1 import segmenter_service_pb2 as pb
from granulo_core.errors import FieldViolation, GranuloError, Reason, invalid_fields
from granulo_core.imaging.labels import encode_tiff
from granulo_core.imaging.pixels import PixelSize
from granulo_core.imaging.read import Micrograph, read_micrograph
from granulo_core.imaging.reading.isolated import IsolatedReader
from granulo_core.rpc.lifetime import CallLifetime
from granulo_core.rpc.required import missing_fields
from granulo_core.rpc.streams import answered
from granulo_core.store.port import ObjectStore, StoredObject, digest_of
from granulo_core.telemetry.metrics import record
from granulo_core.telemetry.stages import Stage, in_stage, stage
from granulo_segmenter import convert, images, workflow
from granulo_segmenter.domain.jobs import SourceImage, page_names
from granulo_segmenter.domain.model import ResolvedModel
from granulo_segmenter.domain.options import Options
from granulo_segmenter.domain.segmentation import segment
from granulo_segmenter.domain.tables import particle_table
from granulo_segmenter.predictor.client import Predictor
from granulo_segmenter.serving import ServedVersions
from granulo_segmenter.settings import SegmenterSettings
from granulo_segmenter.slots import Slots

MAX_INLINE_BYTES = 3 << 20
_IN_FLIGHT = 4
"""Images of one stream that are read, computed or waiting to be sent."""


@dataclass(frozen=True)
class _Work:
    """What all pages of a file have in common."""

    source: SourceImage
    size_bytes: int
    model: ResolvedModel
    predictor: Predictor
    options: Options
    pixel_size: PixelSize | None
    """As the user says it; None takes each page's own."""
    lifetime: CallLifetime


class CallSegmenter:
    """Segments images outside of operations.

    Parameters
    ----------
    store : ObjectStore
    settings : SegmenterSettings
    slots : Slots
        Places for images; tenants share them.
    reader : IsolatedReader
        Reads the images; tenants share it, too.
    """

    def __init__(
        self,
        store: ObjectStore,
        settings: SegmenterSettings,
        slots: Slots,
        reader: IsolatedReader,
    ) -> None:
        self._store = store
        self._settings = settings
        self._slots = slots
        self._reader = reader
        self._versions = ServedVersions(lambda name: workflow.resolve_model(store, name, settings))
        self._making = threading.Lock()
        self._shared: Predictor | None = None

    def segment(
        self, request: pb.SegmentImageRequest, lifetime: CallLifetime, *, is_stream: bool = False
    ) -> pb.SegmentImageResponse:
        """Segment one image, or every page of a file.

        Parameters
        ----------
        request : SegmentImageRequest
        lifetime : CallLifetime
            Its end is looked for between stages and tiles.
        is_stream : bool
            A stream is slowed down by its bounded in-flight rather than refused.

        Raises
        ------
        GranuloError
            What is wrong with the request, the image, or the model server; SERVER_BUSY when too
            many calls wait; DEADLINE_PASSED or OPERATION_CANCELLED when nobody waits any more.
        """
        predictor = self._predictor()
        model = self._versions.choose(request.model, predictor)
        options = convert.options(request.options, model.facts, "options")
        size = None
        if request.HasField("pixel_size"):
            size = convert.pixel_size(request.pixel_size, "pixel_size")
        source = self._source(request)
        # Pixels are read only in here: what waits is as small as its file.
        with (
            self._slots.hold(lifetime, is_stream=is_stream),
            tempfile.TemporaryDirectory(prefix="granulo-call-") as folder,
        ):
            data: bytes | Path = request.inline
            if not data:
                data = Path(folder) / "image"
                self._store.get_file(source.key, data, source.digest)
            size_bytes = data.stat().st_size if isinstance(data, Path) else len(data)
            work = _Work(source, size_bytes, model, predictor, options, size, lifetime)
            micrograph = self._read(data, work, 0)
            result = self._segment(work, micrograph)
            further = [
                self._segment(work, self._read(data, work, page))
                for page in range(1, micrograph.pages)
            ]
        return pb.SegmentImageResponse(
            result=result,
            further_pages=further,
            resolved_model_version=model.resource,
        )

    def _read(self, data: bytes | Path, work: _Work, page: int) -> Micrograph:
        with stage(Stage.READ):
            return self._reader.run(
                read_micrograph,
                data,
                name=work.source.name,
                check=work.lifetime.check,
                page=page,
                max_px=self._settings.max_call_px,
            )

    def _segment(self, work: _Work, micrograph: Micrograph) -> pb.SegmentedImage:
        """Segment one page and store what was found."""
        size = work.pixel_size or micrograph.pixel_size
        work.lifetime.check()
        with stage(Stage.INSTANCES):
            found = segment(
                micrograph,
                work.model.facts,
                lambda tiles, names: in_stage(
                    Stage.NETWORK,
                    work.predictor.predict_many(work.model.served, tiles, names, work.lifetime),
                ),
                options=work.options,
                pixel_size=size,
            )
        work.lifetime.check()
        with stage(Stage.WRITE):
            labels = self._upload(encode_tiff(found.labels, size, kind="labels"), "image/tiff")
            table = self._upload(particle_table(found.particles, size), "text/csv")
        source = replace(work.source, page=micrograph.page, pages=micrograph.pages)
        stem = page_names([source])[0].rsplit(".", 1)[0]
        result = convert.segmented_image(
            StoredObject(source.key, source.digest, work.size_bytes, ""),
            source.name,
            labels,
            f"{stem}_labels.tif",
            particle_count=found.particle_count,
            size=size,
            content_height_px=convert.cut_height(micrograph),
            inverted=found.inverted,
            page=micrograph.page + 1 if micrograph.pages > 1 else 0,
        )
        convert.add_file(result, "particles", table, f"{stem}_particles.csv")
        record("granulo_images_total", service="segmenter")
        return result

    def stream(
        self, requests: Iterator[pb.SegmentImagesRequest], lifetime: CallLifetime
    ) -> Iterator[pb.SegmentImagesResponse]:
        """Segment images as they come; answers in order of completion.

        Parameters
        ----------
        requests : iterator
            Read only as fast as the answers are taken.
        lifetime : CallLifetime
        """
        return answered(
            requests,
            lambda request: self._answer(request, lifetime),
            lifetime,
            in_flight=_IN_FLIGHT,
            name="stream",
        )

    def _answer(
        self, request: pb.SegmentImagesRequest, lifetime: CallLifetime
    ) -> pb.SegmentImagesResponse:
        answer = pb.SegmentImagesResponse(correlation_id=request.correlation_id)
        try:
            if violations := missing_fields(request):
                raise invalid_fields(violations)
            answer.response.CopyFrom(self.segment(request.request, lifetime, is_stream=True))
        except GranuloError as error:
            answer.error.CopyFrom(convert.stream_error(error))
        except Exception as error:
            # One image must not end the stream of the others.
            defect = GranuloError(
                Reason.INTERNAL_ERROR,
                f"The image {request.correlation_id} met a defect of Granulo "
                f"({type(error).__name__}: {error}).",
            )
            answer.error.CopyFrom(convert.stream_error(defect))
        return answer

    def _source(self, request: pb.SegmentImageRequest) -> SourceImage:
        kind = request.WhichOneof("image")
        if kind == "artifact":
            return images.locate(self._store, request.artifact, "artifact")
        if kind != "inline" or not request.inline:
            text = "is required: give inline bytes or an artifact"
            raise invalid_fields([FieldViolation("image", text)])
        if len(request.inline) > MAX_INLINE_BYTES:
            text = (
                f"has {len(request.inline)} bytes, more than {MAX_INLINE_BYTES}; upload the image "
                "and give the artifact"
            )
            raise invalid_fields([FieldViolation("inline", text)])
        return SourceImage("", digest_of(request.inline), "image")

    def _upload(self, data: bytes, media_type: str) -> StoredObject:
        key = f"uploads/{digest_of(data).removeprefix('sha256:')}"
        return self._store.put(key, data, media_type)

    def _predictor(self) -> Predictor:
        with self._making:
            if self._shared is None:
                self._shared = Predictor(
                    workflow.require_model_server(self._settings),
                    self._settings,
                    timeout_s=self._settings.tile_timeout_s,
                    patience_s=self._settings.call_patience_s,
                    in_flight=2 * self._settings.calls_at_once,
                )
            return self._shared
