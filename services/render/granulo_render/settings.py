# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of the render service."""

from typing import Literal

from pydantic import Field

from granulo_core.settings import CoreSettings


class RenderSettings(CoreSettings):
    """What the renderer may be told beyond `CoreSettings`."""

    max_images: int = Field(default=100_000, ge=1, le=1_000_000)
    """Most scenes that one dataset may have."""
    render_device: Literal["cpu", "auto", "optix", "cuda", "hip", "oneapi", "metal"] = "cpu"
    """Where Blender renders; ``auto`` takes a GPU if there is one. A GPU that is asked for and
    absent is an error when the first scene is rendered. Other devices give other bytes."""
