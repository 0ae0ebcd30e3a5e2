# SPDX-License-Identifier: Apache-2.0
"""Resource names from what people type."""

from collections.abc import Mapping

from granulo.segmenter.v1 import segmenter_service_pb2 as segmenter_pb
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
_POLARITIES = {
    "auto": segmenter_pb.SegmentationOptions.POLARITY_UNSPECIFIED,
    "yes": segmenter_pb.SegmentationOptions.POLARITY_DARK,
    "no": segmenter_pb.SegmentationOptions.POLARITY_BRIGHT,
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


def polarity(text: str) -> "segmenter_pb.SegmentationOptions.Polarity.ValueType":
    """Enum value of the answer to whether particles are darker than the ground.

    Raises
    ------
    UsageError
        There is no such answer.
    """
    if text not in _POLARITIES:
        raise UsageError(f"--invert is {text!r}; give {', '.join(_POLARITIES)}.")
    return _POLARITIES[text]


def owner(uri: str, routes: Mapping[str, str]) -> str:
    """A service with a known address that can read an object of the store, best its owner."""
    first = _OWNERS.get(uri.split("/", 1)[0], "")
    return first if first in routes else next(iter(routes))
