# SPDX-License-Identifier: Apache-2.0
"""Works through an adaptation: measure the base, train it further, measure again, compare."""

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from granulo.analyzer.v1.analyzer_service_pb2 import EvaluationPair
from granulo_client.adaptation import plan
from granulo_client.adaptation.page import write_page
from granulo_client.adaptation.report import Report
from granulo_client.client import Client
from granulo_client.commands.session import Session
from granulo_client.errors import NotFoundError, UsageError
from granulo_client.files import write_whole
from granulo_client.results import LABELS_ENDING, evaluation_document
from granulo_client.study import Study, load_study
from granulo_client.study_run import StudyRun, prepare

STUDY_NAME = "study.yaml"
REPORT_NAME = "report.json"
PAGE_NAME = "compared.html"


def check_files(asked: plan.Adaptation) -> None:
    """Find the recipe, the images and their true labels, before anything is started.

    Raises
    ------
    UsageError
        As `study_run.prepare`; or what was found for an image's true labels is the image.
    """
    found = prepare(plan.before_study(asked, plan.BASE_MODEL), Path())
    micrographs = {path.resolve() for path in found.images}
    for pair in found.truths:
        if pair.truth.resolve() in micrographs:
            raise UsageError(
                f"{asked.truth} has no true labels for {pair.truth.name}, only the image itself; "
                f"call them {pair.truth.stem}{LABELS_ENDING}."
            )


@dataclass(frozen=True)
class AdaptRun:
    """One pass through an adaptation; what is finished is found, not made again."""

    session: Session
    client: Client
    asked: plan.Adaptation
    out: Path

    def run(self) -> Report:
        """Do everything.

        Returns
        -------
        Report
            Also written to ``report.json`` and, with the overlays, to ``compared.html``.

        Raises
        ------
        GranuloClientError
            The first thing that failed. The recipe and all images are checked before any work.
        """
        self._check_model()
        scene_px = self._checked_scene_px()
        base = self._base()
        study = plan.after_study(self.asked, base, scene_px)
        self._keep(study)
        self.session.reporter.note(f"Before: what {base} finds")
        before = self._study(plan.before_study(self.asked, base), "before")
        self.session.reporter.note(f"After: training {base} further on {self.asked.recipe}")
        after = self._study(study, "after")
        agreement = self._agreement(before, after)
        validated = len(study.train.validation) if study.train else 0
        report = Report(self.asked, base, before, after, agreement, validated)
        text = json.dumps(report.document(), indent=2, ensure_ascii=False)
        self._write(REPORT_NAME, f"{text}\n")
        self._write(PAGE_NAME, write_page(report, self.out))
        return report

    def lines(self, report: Report) -> list[str]:
        """The result for people."""
        return [
            *report.lines(),
            f"side by side: {self.out / PAGE_NAME}",
            f"use it: granulo segment --model {self.asked.model} IMAGE... --out DIR",
        ]

    def _check_model(self) -> None:
        """Refuse a name that no model can have."""
        with suppress(NotFoundError):
            self.client.model(self.asked.model)

    def _checked_scene_px(self) -> int:
        """Side of the scenes, from a recipe that can be rendered."""
        study = plan.before_study(self.asked, plan.BASE_MODEL)
        ((_, source),) = prepare(study, Path()).heldout
        with source.located():
            recipe = self.client.check_recipe(source.recipe)
        return self.asked.size_px or recipe.imaging.size_px

    def _base(self) -> str:
        """The version to begin with: as at the first time, or what is served as the default now.

        With ``--name default`` the latter changes when the adapted model is promoted.
        """
        path = self.out / STUDY_NAME
        if path.exists():
            train = load_study(path).train
            if train is not None and train.base_version and train.model == self.asked.model:
                return train.base_version
        serving = self.client.model(plan.BASE_MODEL).serving_version
        if not serving:
            raise NotFoundError(
                "No default model is there to adapt: this installation carries none. Train one and "
                "promote it as `default`."
            )
        return serving

    def _keep(self, study: Study) -> None:
        """Keep the study: `granulo run` does the same with it, and a later run the same base."""
        values = study.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
        text = "# Written by `granulo adapt`.\n" + yaml.safe_dump(
            {"version": study.version, **values}, sort_keys=False, allow_unicode=True
        )
        self._write(STUDY_NAME, text)

    def _write(self, name: str, text: str) -> None:
        with write_whole(self.out / name) as file:
            file.write(text.encode())

    def _study(self, study: Study, name: str) -> dict[str, Any]:
        folder = self.out / name
        folder.mkdir(exist_ok=True)
        return StudyRun(self.session, self.client, prepare(study, self.out), folder).run()

    def _agreement(self, before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
        """How far both models find the same particles in the user's images."""
        first, second = (
            self.client.segmentation(found["sets"]["images"]["segmentation"])
            for found in (before, after)
        )
        pairs = [
            EvaluationPair(
                predicted=b.labels, truth=a.labels, truth_kind=EvaluationPair.TRUTH_KIND_INSTANCES
            )
            for a, b in zip(first.results, second.results, strict=True)
        ]
        with self.session.reporter.stage("Comparing before and after"):
            return evaluation_document(self.client.evaluate(pairs))
