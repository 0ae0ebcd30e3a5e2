# SPDX-License-Identifier: Apache-2.0
"""Resource names from what people type."""

from collections.abc import Mapping
from typing import TypeVar

from granulo.analyzer.v1 import analyzer_service_pb2 as analyzer_pb
from granulo.segmenter.v1 import segmenter_service_pb2 as segmenter_pb
from granulo.trainer.v1 import trainer_service_pb2 as trainer_pb
from granulo_client.errors import UsageError

_Value = TypeVar("_Value")

_OWNERS = {
    "datasets": "render",
    "annotated": "trainer",
    "cross-validations": "trainer",
    "models": "trainer",
    "segmentations": "segmenter",
    "analyses": "analyzer",
    "comparisons": "analyzer",
}
CRITERIA = {
    "ap50": trainer_pb.CRITERION_AP50,
    "f1": trainer_pb.CRITERION_F1,
    "label-free": trainer_pb.CRITERION_LABEL_FREE,
    "held-out": trainer_pb.CRITERION_HELD_OUT_AP50,
    "last": trainer_pb.CRITERION_LAST,
}
"""What checkpoints are ranked by, by its name in commands."""
COUNTING_RULES = {
    "miles-lantuejoul": analyzer_pb.AnalysisSettings.COUNTING_RULE_MILES_LANTUEJOUL,
    "exclude": analyzer_pb.AnalysisSettings.COUNTING_RULE_EXCLUDE_BORDER,
    "count-all": analyzer_pb.AnalysisSettings.COUNTING_RULE_COUNT_ALL,
    "two-edges": analyzer_pb.AnalysisSettings.COUNTING_RULE_TWO_EDGES,
}
"""What is done about particles at the frame, by its name in commands."""
_METHODS = {
    # Whatever the network was made for: the paper's has no distance output.
    "default": segmenter_pb.SegmentationOptions.METHOD_UNSPECIFIED,
    "paper": segmenter_pb.SegmentationOptions.METHOD_PAPER,
}
_POLARITIES = {
    "auto": segmenter_pb.SegmentationOptions.POLARITY_UNSPECIFIED,
    "yes": segmenter_pb.SegmentationOptions.POLARITY_DARK,
    "no": segmenter_pb.SegmentationOptions.POLARITY_BRIGHT,
}

_EXPORT_FORMATS = {
    "saved-model": trainer_pb.ExportModelVersionRequest.FORMAT_SAVED_MODEL,
    "onnx": trainer_pb.ExportModelVersionRequest.FORMAT_ONNX,
}


def dataset(text: str) -> str:
    """``ds-1`` to ``datasets/ds-1``; ``datasets/…`` and ``annotated/…`` are names already."""
    return text if text.startswith(("datasets/", "annotated/")) else f"datasets/{text}"


def annotated(text: str) -> str:
    """``a`` or ``annotated/a`` to ``annotated/a``."""
    return text if text.startswith("annotated/") else f"annotated/{text}"


def cross_validation(text: str) -> str:
    """``cv-1`` or ``cross-validations/cv-1`` to ``cross-validations/cv-1``."""
    return text if text.startswith("cross-validations/") else f"cross-validations/{text}"


def comparison(text: str) -> str:
    """``cmp-1`` or ``comparisons/cmp-1`` to ``comparisons/cmp-1``."""
    return text if text.startswith("comparisons/") else f"comparisons/{text}"


def model(text: str) -> str:
    """``m`` or ``models/m`` to ``models/m``."""
    return text if text.startswith("models/") else f"models/{text}"


def model_version(text: str) -> str:
    """``m/3`` or ``models/m/versions/3`` to ``models/m/versions/3``.

    Raises
    ------
    UsageError
        The text names no version.
    """
    parts = text.removeprefix("models/").split("/")
    if len(parts) == 3 and parts[1] == "versions":
        del parts[1]
    if len(parts) != 2 or not all(parts):
        raise UsageError(f"{text!r} names no version of a model; give MODEL/VERSION, e.g. m/1.")
    return f"models/{parts[0]}/versions/{parts[1]}"


def model_or_version(text: str) -> str:
    """``m`` to ``models/m``, ``m/3`` to ``models/m/versions/3``."""
    short = text.removeprefix("models/")
    return model_version(text) if "/" in short else model(text)


def checkpoint(text: str) -> str:
    """``m/3/12`` or ``models/m/versions/3/checkpoints/12`` to the latter.

    Raises
    ------
    UsageError
        The text names no checkpoint.
    """
    parts = text.removeprefix("models/").split("/")
    if len(parts) == 5 and parts[1::2] == ["versions", "checkpoints"]:
        parts = parts[::2]
    if len(parts) != 3 or not all(parts):
        raise UsageError(
            f"{text!r} names no checkpoint; give MODEL/VERSION/EPOCH, e.g. particles/1/12."
        )
    return f"models/{parts[0]}/versions/{parts[1]}/checkpoints/{parts[2]}"


def criterion(text: str) -> "trainer_pb.Criterion.ValueType":
    """Enum value of a criterion's name, e.g. ``label-free``; UsageError for any other."""
    return _one_of(CRITERIA, text, "criterion")


def counting_rule(text: str) -> "analyzer_pb.AnalysisSettings.CountingRule.ValueType":
    """Enum value of a counting rule's name; UsageError for any other."""
    return _one_of(COUNTING_RULES, text, "value of --counting-rule")


def method(text: str) -> "segmenter_pb.SegmentationOptions.Method.ValueType":
    """Enum value of a method's name; UsageError for any other."""
    return _one_of(_METHODS, text, "method")


def export_format(text: str) -> "trainer_pb.ExportModelVersionRequest.Format.ValueType":
    """Enum value of an export's format; UsageError for any other."""
    return _one_of(_EXPORT_FORMATS, text, "format")


def polarity(text: str) -> "segmenter_pb.SegmentationOptions.Polarity.ValueType":
    """Enum value of whether particles are darker than the ground; UsageError for any other."""
    return _one_of(_POLARITIES, text, "value of --invert")


def owner(uri: str, routes: Mapping[str, str]) -> str:
    """A service with a known address that can read an object of the store, best its owner."""
    first = _OWNERS.get(uri.split("/", 1)[0], "")
    return first if first in routes else next(iter(routes))


def _one_of(known: Mapping[str, _Value], text: str, what: str) -> _Value:
    if text not in known:
        raise UsageError(f"{text!r} is no {what}; known are {', '.join(known)}.")
    return known[text]
