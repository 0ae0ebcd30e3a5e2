# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of the analyzer service."""

from pydantic import Field

from granulo_core.settings import CoreSettings


class AnalyzerSettings(CoreSettings):
    """What the analyzer may be told beyond `CoreSettings`."""

    max_images: int = Field(default=5000, ge=1)
    """Most images of one analysis or evaluation."""
    segmenter_address: str = ""
    """``host:port`` of the segmenter that micrographs are screened with; the standalone's own
    where it runs in one, none elsewhere where empty."""
    segmenter_patience_s: float = Field(default=30.0, ge=0)
    """How long a screened micrograph waits for a segmenter that does not answer."""
    screening_timeout_s: float = Field(default=600.0, gt=0)
    """Longest time for one screened micrograph, waiting for a busy segmenter included."""
    screening_in_flight: int = Field(default=3, ge=1, le=32)
    """Micrographs of one screening that are worked on at the same time."""
    max_screenings: int = Field(default=4, ge=1)
    """Screenings at once; each holds one of the places for streams for hours, and others are needed
    to segment for them where all services share a server."""
