# SPDX-License-Identifier: Apache-2.0
"""How much alike real and synthetic micrographs are: calls, plain values, words."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from granulo.analyzer.v1 import analyzer_service_pb2 as pb
from granulo.analyzer.v1 import analyzer_service_pb2_grpc as rpc
from granulo.type.v1.artifact_pb2 import Artifact
from granulo_client import names
from granulo_client.connection import Connection, Source
from granulo_client.jobs import Job

_SHOWN = (
    ("mixed_neighbours", "neighbours from the other set"),
    ("mixed_neighbours_expected", "expected of identical sets"),
    ("mixing", "mixing, 1 where the sets cannot be told apart"),
    ("classifier_accuracy", "classifier's accuracy, 0.5 where it cannot tell them apart"),
    ("noise_ratio", "noise, synthetic over real"),
    ("edge_width_ratio", "edge width, synthetic over real"),
)


class RealismCalls(Connection):
    """Part of `Client`: comparisons of image sets."""

    def compare_image_sets(
        self,
        real: Sequence[Source],
        synthetic: Sequence[Source],
        *,
        vgg16_weights: Source | None = None,
        profile: pb.IntensityProfile | None = None,
        patch_px: int = 0,
        max_patches: int = 0,
        perplexity: float = 0.0,
        seed: int = 0,
    ) -> Job[pb.ImageSetComparison]:
        """Compare real with synthetic micrographs.

        Parameters
        ----------
        real, synthetic : sequence of Source
            Files are uploaded; data bars are cut off.
        vgg16_weights : Source, optional
            Keras' ImageNet weights of VGG16: patches are described by its outputs instead of the
            built-in texture features.
        profile : IntensityProfile, optional
            A line through the first image of each set.
        patch_px, max_patches : int
            Side of the patches, and how many of each set; 0 takes the server's: 144, 1000.
        perplexity : float
            Of the map; 0 takes the server's: 50, less for few patches.
        seed : int
            Of the places of synthetic patches, the map and the intervals.
        """
        request = pb.CompareImageSetsRequest(
            real=[self._artifact(source, "analyzer") for source in real],
            synthetic=[self._artifact(source, "analyzer") for source in synthetic],
            patch_px=patch_px,
            max_patches=max_patches,
            perplexity=perplexity,
            seed=seed,
            profile=profile,
        )
        if vgg16_weights is not None:
            request.features = pb.CompareImageSetsRequest.FEATURES_VGG16
            request.vgg16_weights.CopyFrom(self._artifact(vgg16_weights, "analyzer"))
        stub = rpc.AnalyzerServiceStub(self.channels.to("analyzer"))
        return self._calls.job(stub.CompareImageSets, request, pb.ImageSetComparison, "analyzer")

    def image_set_comparison(self, name: str) -> pb.ImageSetComparison:
        """A finished comparison by id or by resource name."""
        stub = rpc.AnalyzerServiceStub(self.channels.to("analyzer"))
        request = pb.GetImageSetComparisonRequest(name=names.comparison(name))
        return self._calls.call(stub.GetImageSetComparison, request, "analyzer")


def comparison_files(
    found: pb.ImageSetComparison, folder: Path
) -> list[tuple[Artifact | str, Path]]:
    """Map, table of the patches and, where there is one, profile of a comparison."""
    files: list[tuple[Artifact | str, Path]] = [
        (found.picture, folder / "embedding.png"),
        (found.embedding, folder / "embedding.csv"),
    ]
    if found.HasField("profile"):
        files.append((found.profile, folder / "profile.png"))
    return files


def comparison_document(found: pb.ImageSetComparison, folder: Path) -> dict[str, Any]:
    """A comparison as plain values; what is not known is None."""
    return {
        "comparison": found.name,
        "features": found.features,
        "real_patches": found.real_patches,
        "synthetic_patches": found.synthetic_patches,
        "principal_components": found.principal_components,
        "perplexity": found.perplexity,
        "figures": {
            item.name: {
                "unit": item.unit,
                "value": _known(item.value),
                "lower": _known(item.lower),
                "upper": _known(item.upper),
            }
            for item in found.figures
        },
        "warnings": list(found.warnings),
        "files": [str(path) for _, path in comparison_files(found, folder)],
    }


def comparison_lines(found: pb.ImageSetComparison, folder: Path) -> list[str]:
    """A comparison for people."""
    figures = {item.name: item for item in found.figures}
    patches = f"{found.real_patches} real and {found.synthetic_patches} synthetic patches"
    return [
        f"{patches}, {found.features}",
        *(f"{title}: {_text(figures[name])}" for name, title in _SHOWN if name in figures),
        *(f"note: {warning}" for warning in found.warnings),
        f"map: {folder / 'embedding.png'}",
        *([f"profile: {folder / 'profile.png'}"] if found.HasField("profile") else []),
    ]


def _text(figure: pb.Figure) -> str:
    if not math.isfinite(figure.value):
        return "not known"
    text = f"{figure.value:.3f}"
    if math.isfinite(figure.lower):
        text += f" (95 %: {figure.lower:.3f} to {figure.upper:.3f})"
    return text


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
