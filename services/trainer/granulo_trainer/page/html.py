# SPDX-License-Identifier: GPL-3.0-or-later
"""One HTML file with the predictions of all epochs side by side; it loads nothing."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from numpy.typing import NDArray

_JPEG_QUALITY = 92


@dataclass(frozen=True)
class PageImage:
    """A validation image."""

    name: str
    pixels: NDArray[np.uint8]
    """(H, W), as the network sees it."""


@dataclass(frozen=True)
class PageEpoch:
    """A checkpoint."""

    epoch: int
    figures: Mapping[str, float]
    outlines: Sequence[bytes]
    """Of each image, as ``encode_outlines`` gives them."""
    counts: Sequence[int]
    """Particles in each image."""
    explanation: str
    """Why it stands where it stands in the ranking."""


@dataclass(frozen=True)
class Page:
    """Everything on the page."""

    version: str
    """``models/<model>/versions/<n>``"""
    state: str
    """For people, e.g. ``finished``."""
    criterion: str
    """What the epochs are ranked by, for people."""
    ranked_figure: str
    """Name of the figure that they are ranked by; empty where it is the epoch's number."""
    images: Sequence[PageImage]
    epochs: Sequence[PageEpoch]
    """Best first."""


def render_page(page: Page) -> str:
    """Write the page.

    Parameters
    ----------
    page : Page

    Returns
    -------
    str
        A whole HTML document. An image is embedded once, predictions as outlines: some 50 bytes
        a particle and epoch.
    """
    model, number = page.version.removeprefix("models/").split("/versions/")
    content = {
        "version": f"{model}/{number}",
        "rankedFigure": page.ranked_figure,
        "images": [
            {
                "name": image.name,
                "width": image.pixels.shape[1],
                "height": image.pixels.shape[0],
                "jpeg": _jpeg(image.pixels),
            }
            for image in page.images
        ],
        "epochs": [
            {
                "epoch": item.epoch,
                "figures": dict(sorted(item.figures.items())),
                "counts": list(item.counts),
                "outlines": [base64.b64encode(data).decode() for data in item.outlines],
                "explanation": item.explanation,
            }
            for item in page.epochs
        ],
    }
    return _template().render(
        version=page.version,
        state=page.state,
        criterion=page.criterion,
        # "</script>" in an image's name must not end the script.
        content=json.dumps(content, ensure_ascii=False).replace("<", "\\u003c"),
    )


def _jpeg(pixels: NDArray[np.uint8]) -> str:
    written, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    if not written:
        raise ValueError(f"an image of shape {pixels.shape} cannot be written as JPEG")
    return base64.b64encode(bytes(data)).decode()


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("granulo_trainer", "page"),
        autoescape=True,
        trim_blocks=True,
        undefined=StrictUndefined,
    )
    return environment.get_template("checkpoints.html.j2")
