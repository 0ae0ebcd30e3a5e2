# SPDX-License-Identifier: Apache-2.0
"""`granulo screen`."""

from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from granulo.analyzer.v1.analyzer_service_pb2 import ScreenMicrographsResponse, Summary
from granulo_client.commands.session import (
    DataOption,
    JsonOption,
    ModelOption,
    PixelSizeOption,
    QuietOption,
    ServerOption,
    check_at_least,
    check_pixel_size,
    open_session,
)
from granulo_client.commands.statistics import (
    ConfidenceLevelOption,
    CountingRuleOption,
    MinConfidenceOption,
    SeedOption,
    TargetOption,
    analysis_settings,
)
from granulo_client.errors import GranuloClientError, UsageError, from_code
from granulo_client.progress import Reporter
from granulo_client.statistics import (
    advice_document,
    ensemble_text,
    figure_text,
    percent,
    shown_unit,
    summary_document,
)
from granulo_client.truth import find_micrographs
from granulo_client.watching import WatchedFolder

_MIN_IMAGES = 3


def screen(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder with micrographs.")],
    watch: Annotated[
        bool,
        typer.Option(
            "--watch", help="Go on with what an instrument adds to the folder, until Ctrl-C."
        ),
    ] = False,
    settle: Annotated[
        float,
        typer.Option(
            metavar="S", help="With --watch: a file that stays the same for so long is whole."
        ),
    ] = 2.0,
    model: ModelOption = "",
    pixel_size: PixelSizeOption = None,
    target: TargetOption = "5%",
    min_images: Annotated[
        int, typer.Option(metavar="N", help="No advice to stop before so many micrographs.")
    ] = _MIN_IMAGES,
    counting_rule: CountingRuleOption = "miles-lantuejoul",
    confidence_level: ConfidenceLevelOption = "95%",
    min_confidence: MinConfidenceOption = 0.0,
    seed: SeedOption = 0,
    server: ServerOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Measure micrographs as they come, and say when there are enough."""
    session = open_session(server, data, as_json, quiet)
    check_pixel_size(pixel_size)
    check_at_least("--min-images", "min_images", min_images, 1)
    if not 0 < settle <= 3600:
        raise UsageError(f"--settle is {settle:g}; give seconds above 0, e.g. 2.")
    settings = analysis_settings(
        counting_rule=counting_rule,
        confidence_level=confidence_level,
        target=target,
        seed=seed,
        min_confidence=min_confidence,
    )
    sources, total = _sources(folder, watch, settle, session.reporter)
    screened = _Screened(session.reporter)
    with session.client() as client:
        answers = client.screen(
            sources,
            model=model,
            pixel_size_nm=pixel_size,
            settings=settings,
            min_images=min_images,
        )
        try:
            with closing(answers):
                screened.follow(answers, total)
        except KeyboardInterrupt:
            # The usual end of a watch; the half of a folder is an interruption.
            if not watch:
                raise
        finally:
            if isinstance(sources, WatchedFolder):
                sources.stop()
    level = percent(settings.confidence_level)
    session.show(screened.document(), screened.lines(level))
    if not watch:
        for failure in screened.failures:
            failure.in_document = True
            raise failure


@dataclass
class _Screened:
    """What came back so far."""

    reporter: Reporter
    answers: list[ScreenMicrographsResponse] = field(default_factory=list)
    last: ScreenMicrographsResponse | None = None
    """The newest one that tells of all images."""

    @property
    def failures(self) -> list[GranuloClientError]:
        """What was wrong with single micrographs."""
        return [
            from_code(answer.error.code, answer.error.message, answer.error.reason)
            for answer in self.answers
            if answer.HasField("error")
        ]

    def follow(self, answers: Iterable[ScreenMicrographsResponse], total: int | None) -> None:
        """Show answers as they come."""
        with self.reporter.stage("Screening", total=total, unit="image") as stage:
            for answer in answers:
                self.answers.append(answer)
                if answer.HasField("running") and (
                    self.last is None or answer.images >= self.last.images
                ):
                    self.last = answer
                self.reporter.note(_image_line(answer))
                text = self.last.advice.text if self.last else ""
                stage.update(done=len(self.answers), total=total, unit="image", note=text)

    def lines(self, level: str) -> list[str]:
        """The result for people."""
        failed = len(self.failures)
        left_out = f" ({failed} could not be screened)" if failed else ""
        if self.last is None:
            return [f"no micrograph was counted{left_out}"]
        running, images = self.last.running, self.last.images
        plural = "micrograph" if images == 1 else "micrographs"
        lines = [f"{running.count} particles counted in {images} {plural}{left_out}"]
        if running.count:
            lines += [f"ECD: {ensemble_text(running, level)}"]
        return [*lines, self.last.advice.text]

    def document(self) -> dict[str, Any]:
        """The result for machines."""
        return {
            "images": self.last.images if self.last else 0,
            "running": summary_document(self.last.running) if self.last else None,
            "advice": advice_document(self.last.advice) if self.last else None,
            "micrographs": [_image_document(answer) for answer in self.answers],
        }


def _sources(
    folder: Path, watch: bool, settle_s: float, reporter: Reporter
) -> tuple[Iterable[Path], int | None]:
    """Files to screen, and how many, where that is known."""
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder; name the one with the micrographs.")
    if watch:
        return WatchedFolder(folder, settle_s, reporter.note), None
    files = find_micrographs(folder)
    return files, len(files)


def _image_line(answer: ScreenMicrographsResponse) -> str:
    name = Path(answer.correlation_id).name
    if answer.HasField("error"):
        return f"{name}: {answer.error.message}"
    ecd = _ecd(answer)
    text = f"{name}: {answer.image_particle_count} particles"
    if ecd is not None and ecd.count:
        text += f", median ECD {ecd.median:.4g} {shown_unit(ecd.unit)}"
    return f"{text}; of {answer.images} so far {figure_text(answer.running, 'median')}"


def _image_document(answer: ScreenMicrographsResponse) -> dict[str, Any]:
    if answer.HasField("error"):
        return {
            "image": answer.correlation_id,
            "error": {"reason": answer.error.reason, "message": answer.error.message},
        }
    ecd = _ecd(answer)
    return {
        "image": answer.correlation_id,
        "particle_count": answer.image_particle_count,
        "counted": ecd.count if ecd else 0,
        "median_ecd": ecd.median if ecd and ecd.count else None,
        "unit": ecd.unit if ecd else None,
    }


def _ecd(answer: ScreenMicrographsResponse) -> Summary | None:
    return next((item for item in answer.image if item.quantity == "ecd"), None)
