# SPDX-License-Identifier: Apache-2.0
"""Works through a study; every request is repeatable, so nothing needs to be remembered."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from granulo.analyzer.v1.analyzer_service_pb2 import Analysis, EvaluationPair
from granulo.render.v1.render_service_pb2 import Dataset
from granulo.segmenter.v1.segmenter_service_pb2 import Segmentation
from granulo.type.v1.artifact_pb2 import Artifact
from granulo_client.artifacts import check_readable
from granulo_client.client import Client
from granulo_client.commands.session import Session
from granulo_client.errors import GranuloClientError, UsageError, from_status
from granulo_client.exports import tiff_files
from granulo_client.recipes import RecipeSource, recipe_source
from granulo_client.results import (
    LABELS_ENDING,
    analysis_document,
    analysis_files,
    by_image,
    evaluation_document,
    segmentation_files,
    segmented_documents,
    unique_stems,
)
from granulo_client.study import RenderItem, Study
from granulo_client.truth import TruthPair, find_truth


@dataclass(frozen=True)
class StudyPlan:
    """A study whose files were all found."""

    study: Study
    render: tuple[tuple[RenderItem, RecipeSource], ...]
    heldout: tuple[tuple[RenderItem, RecipeSource], ...]
    validation: tuple[tuple[Path, Path | None], ...]
    images: tuple[Path, ...]
    stems: tuple[str, ...]
    truths: tuple[TruthPair, ...]
    """One an image, or none at all."""


def prepare(study: Study, base: Path) -> StudyPlan:
    """Find every file that a study names, before any work.

    Parameters
    ----------
    study : Study
    base : Path
        Folder of the study file.

    Raises
    ------
    UsageError
        A file is missing, or no recipe.
    """
    segment, train = study.segment, study.train
    images = _images(segment.images if segment else (), base)
    stems = unique_stems([path.name for path in images])
    truths: list[TruthPair] = []
    if study.evaluate is not None:
        folder = base / study.evaluate.truth
        truths = [find_truth(Path(f"{stem}{LABELS_ENDING}"), folder) for stem in stems]
    return StudyPlan(
        study=study,
        render=tuple((item, recipe_source(item.recipe, base)) for item in study.render),
        heldout=tuple(
            (item, recipe_source(item.recipe, base))
            for item in (segment.heldout if segment else ())
        ),
        validation=tuple(
            (
                check_readable(base / item.image),
                check_readable(base / item.labels) if item.labels else None,
            )
            for item in (train.validation if train else ())
        ),
        images=tuple(images),
        stems=tuple(stems),
        truths=tuple(truths),
    )


class StudyRun:
    """One pass through a study.

    Parameters
    ----------
    session : Session
    client : Client
    plan : StudyPlan
    out : Path
        Folder for labels, tables and reports.
    """

    def __init__(self, session: Session, client: Client, plan: StudyPlan, out: Path) -> None:
        self._session = session
        self._client = client
        self._plan = plan
        self._out = out
        self._document: dict[str, Any] = {"out": str(out), "datasets": [], "sets": {}}
        self._failures: list[GranuloClientError] = []

    def run(self) -> dict[str, Any]:
        """Do everything; what is finished already is found, not made again.

        Returns
        -------
        dict
            Names and figures of all results, also written to ``study.json``.

        Raises
        ------
        GranuloClientError
            The first thing that failed.
        """
        datasets = [self._render(item, source, "Rendering") for item, source in self._plan.render]
        self._document["datasets"] = [dataset.name for dataset in datasets]
        model = self._train(datasets)
        segment = self._plan.study.segment
        if segment is not None:
            model = segment.model or model
            if self._plan.images:
                self._user_images(model)
            for number, (item, source) in enumerate(self._plan.heldout):
                self._heldout(item, source, number, model)
        (self._out / "study.json").write_text(json.dumps(self._document, indent=2) + "\n")
        if self._failures:
            raise self._failures[0]
        return self._document

    def lines(self) -> list[str]:
        """The results for people."""
        lines = [f"dataset: {name}" for name in self._document["datasets"]]
        if "model_version" in self._document:
            lines.append(f"model: {self._document['model_version']}")
        for name, found in self._document["sets"].items():
            count = found["analysis"]["particle_count"]
            lines.append(f"{name}: {count} particles, report: {found['analysis']['report']}")
            if "evaluation" in found:
                metrics = found["evaluation"]["metrics"]
                lines.append(f"{name}: DSC {metrics['f1']:.3f}, AP50 {metrics['ap50']:.2f}")
        return [*lines, f"everything is in {self._out}"]

    def _render(self, item: RenderItem, source: RecipeSource, title: str) -> Dataset:
        with source.located():
            job = self._client.render(
                source.recipe, count=item.count, seed=item.seed, size_px=item.size_px or 0
            )
        return self._session.reporter.follow(job, f"{title} {Path(item.recipe).stem}")

    def _train(self, datasets: Sequence[Dataset]) -> str:
        train = self._plan.study.train
        if train is None:
            return ""
        items = self._plan.study.render
        job = self._client.train(
            [dataset.name for dataset in datasets],
            weights={
                dataset.name: item.weight
                for dataset, item in zip(datasets, items, strict=True)
                if item.weight is not None
            },
            model=train.model,
            preset=train.preset or ("" if train.base_version else "small"),
            epochs=train.epochs or 0,
            steps_per_epoch=train.steps_per_epoch or 0,
            batch_size=train.batch_size or 0,
            patch_px=train.patch_px or 0,
            learning_rate=train.learning_rate or 0.0,
            seed=train.seed,
            validation=self._session.upload_pairs(self._client, self._plan.validation, "trainer"),
            max_steps=train.max_steps or 0,
            max_minutes=train.max_minutes or 0.0,
            early_stopping_epochs=train.early_stopping_epochs or 0,
            precision="" if train.precision == "auto" else train.precision,
            deterministic=train.deterministic,
            base_version=train.base_version or "",
            width=train.width or 0.0,
        )
        version = self._session.reporter.follow(job, "Training")
        with self._session.reporter.stage("Promoting"):
            self._client.promote(version.name)
        self._document["model_version"] = version.name
        self._document["training_metrics"] = dict(sorted(version.metrics.items()))
        return version.name

    def _user_images(self, model: str) -> None:
        segment = self._plan.study.segment
        assert segment is not None  # there are images
        uploaded = self._session.upload(self._client, self._plan.images, "segmenter")
        job = self._client.segment(
            uploaded, model=model, method=segment.method, pixel_size_nm=segment.pixel_size_nm
        )
        done = self._session.reporter.follow(job, "Segmenting images")
        self._failures += [from_status(status) for status in job.progress.partial_failures]
        names = [str(path) for path in self._plan.images]
        pairs = []
        if self._plan.truths:
            files = [(pair.truth, None) for pair in self._plan.truths]
            truths = self._session.upload_pairs(self._client, files, "analyzer")
            height = self._plan.study.evaluate.content_height_px if self._plan.study.evaluate else 0
            pairs = [
                EvaluationPair(
                    predicted=result.labels,
                    truth=truth,
                    truth_kind=pair.kind,
                    content_height_px=height,
                )
                for pages, (truth, _), pair in zip(
                    by_image(done.results, uploaded), truths, self._plan.truths, strict=True
                )
                for result in pages[:1]
            ]
        self._finish("images", done, names, self._plan.stems, pairs, uploaded)

    def _heldout(self, item: RenderItem, source: RecipeSource, number: int, model: str) -> None:
        segment = self._plan.study.segment
        assert segment is not None  # there is something held out
        dataset = self._render(item, source, "Rendering held-out")
        job = self._client.segment(dataset.name, model=model, method=segment.method)
        done = self._session.reporter.follow(job, "Segmenting held-out")
        name = f"heldout-{number + 1}-{Path(item.recipe).stem}"
        truth = self._out / name / "truth"
        files = tiff_files([*dataset.images, *dataset.labels], truth)
        self._session.download(self._client, files)
        pairs = [
            EvaluationPair(
                predicted=result.labels,
                truth=labels,
                truth_kind=EvaluationPair.TRUTH_KIND_INSTANCES,
            )
            for result, labels in zip(done.results, dataset.labels, strict=True)
        ]
        stems = [f"{index:06d}" for index in range(len(dataset.images))]
        names = [str(truth / f"{stem}_image.tif") for stem in stems]
        self._finish(name, done, names, stems, pairs, dataset.images)

    def _finish(
        self,
        name: str,
        done: Segmentation,
        images: Sequence[str],
        stems: Sequence[str],
        pairs: Sequence[EvaluationPair],
        artifacts: Sequence[Artifact],
    ) -> None:
        """Analyse a segmentation, compare it with its truth, and save all of it."""
        folder = self._out / name
        results = by_image(done.results, artifacts)
        job = self._client.analyze(done.name)
        analysis: Analysis = self._session.reporter.follow(job, f"Analysing {name}")
        found: dict[str, Any] = {
            "segmentation": done.name,
            "model_version": done.resolved_model_version,
            "images": segmented_documents(results, images, stems, folder),
            "analysis": analysis_document(analysis, folder),
        }
        if pairs:
            with self._session.reporter.stage(f"Comparing {name}"):
                found["evaluation"] = evaluation_document(self._client.evaluate(pairs))
        files = segmentation_files(results, stems, folder)
        self._session.download(self._client, files + analysis_files(self._client, analysis, folder))
        self._document["sets"][name] = found


def _images(patterns: Sequence[str], base: Path) -> list[Path]:
    found: list[Path] = []
    for pattern in patterns:
        if (base / pattern).exists():
            matches = [check_readable(base / pattern)]
        else:
            folder, _, name = pattern.rpartition("/")
            matches = sorted(path for path in (base / folder).glob(name) if path.is_file())
        if not matches:
            raise UsageError(f"segment.images: nothing matches {pattern} in {base}.")
        found += [path for path in matches if path not in found]
    return found
