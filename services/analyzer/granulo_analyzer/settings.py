# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of the analyzer service."""

from pydantic import Field

from granulo_core.settings import CoreSettings


class AnalyzerSettings(CoreSettings):
    """What the analyzer may be told beyond `CoreSettings`."""

    max_images: int = Field(default=5000, ge=1)
    """Most images of one analysis or evaluation."""
