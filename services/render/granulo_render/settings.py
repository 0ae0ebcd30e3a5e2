# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of the render service."""

from pydantic import Field

from granulo_core.settings import CoreSettings


class RenderSettings(CoreSettings):
    """What the renderer may be told beyond `CoreSettings`."""

    max_images: int = Field(default=100_000, ge=1, le=1_000_000)
    """Most scenes that one dataset may have."""
