# SPDX-License-Identifier: Apache-2.0
"""Resource names from what people type."""

from collections.abc import Mapping

from granulo.segmenter.v1 import segmenter_service_pb2 as segmenter_pb
from granulo.trainer.v1 import trainer_service_pb2 as trainer_pb
from granulo_client.errors import UsageError

_OWNERS = {
    "datasets": "render",
    "models": "trainer",
    "segmentations": "segmenter",
    "analyses": "analyzer",
}
_METHODS = {
    "default": segmenter_pb.SegmentationOptions.METHOD_DEFAULT,
    "paper": segmenter_pb.SegmentationOptions.METHOD_PAPER,
}

_EXPORT_FORMATS = {
    "saved-model": trainer_pb.ExportModelVersionRequest.FORMAT_SAVED_MODEL,
    "onnx": trainer_pb.ExportModelVersionRequest.FORMAT_ONNX,
}


def dataset(text: str) -> str:
    """``ds-1`` or ``datasets/ds-1`` to ``datasets/ds-1``."""
    return text if text.startswith("datasets/") else f"datasets/{text}"


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


def method(text: str) -> "segmenter_pb.SegmentationOptions.Method.ValueType":
    """Enum value of a method's name.

    Raises
    ------
    UsageError
        There is no such method.
    """
    if text not in _METHODS:
        raise UsageError(f"{text!r} is no method; known are {', '.join(_METHODS)}.")
    return _METHODS[text]


def export_format(text: str) -> "trainer_pb.ExportModelVersionRequest.Format.ValueType":
    """Enum value of an export's format.

    Raises
    ------
    UsageError
        There is no such format.
    """
    if text not in _EXPORT_FORMATS:
        raise UsageError(f"{text!r} is no format; known are {', '.join(_EXPORT_FORMATS)}.")
    return _EXPORT_FORMATS[text]


def owner(uri: str, routes: Mapping[str, str]) -> str:
    """A service with a known address that can read an object of the store, best its owner."""
    first = _OWNERS.get(uri.split("/", 1)[0], "")
    return first if first in routes else next(iter(routes))
