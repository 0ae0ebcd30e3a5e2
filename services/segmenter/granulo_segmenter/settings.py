# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of the segmenter service."""

from pydantic import Field

from granulo_core.settings import CoreSettings


class SegmenterSettings(CoreSettings):
    """What the segmenter may be told beyond `CoreSettings`."""

    max_images: int = Field(default=5000, ge=1)
    """Most images of one segmentation."""
    max_call_px: int = Field(default=4096 * 4096, ge=1)
    """Largest image, in pixels, that a call answers within its deadline."""
    call_patience_s: float = Field(default=15.0, ge=0)
    """How long a call waits for a model server that does not answer."""
    job_patience_s: float = Field(default=120.0, ge=0)
    """How long a job does."""
    tile_timeout_s: float = Field(default=120.0, gt=0)
    """Longest time for one tile."""
    calls_at_once: int = Field(default=2, ge=1, le=64)
    """Images that calls and streams segment at the same time."""
    memory_px: int = Field(default=64 * 2**20, ge=1)
    """Images of more pixels are worked through in temporary files (about 10 bytes a pixel, where
    the system keeps such files) rather than in memory, as far as their format lets parts be
    read."""
    packaged_model: str = ""
    """SavedModel folder that stands in for an unpromoted models/default; the distribution's own
    where empty."""
