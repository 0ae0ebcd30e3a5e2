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
    calls_waiting: int = Field(default=8, ge=0, le=1000)
    """Calls that wait for one of these places; beyond them SERVER_BUSY at once."""
    memory_px: int = Field(default=64 * 2**20, ge=1)
    """Images of more pixels are worked through in temporary files (about 10 bytes a pixel, where
    the system keeps such files) rather than in memory, as far as their format lets parts be
    read."""
    runs_operations: bool = True
    """Whether this server runs segmentations. Exactly one of an installation does; any number of
    others answer ``SegmentImage`` and ``SegmentImages`` only."""
    packaged_model: str = ""
    """SavedModel folder that stands in for an unpromoted models/default; the distribution's own
    where empty."""


class SyncSettings(CoreSettings):
    """What the model sync may be told beyond `CoreSettings`."""

    sync_root: str = ""
    """The model server's base folder."""
    sync_serving_root: str = ""
    """Where the model server sees this folder; the same path where empty."""
    sync_interval_s: float = Field(default=5.0, gt=0)
    """Pause between looks at the store; pauses after failures grow to a minute."""
    sync_keep_older: int = Field(default=2, ge=0)
    """Versions of a model that stay after others were promoted."""
    sync_keep_for_s: float = Field(default=900.0, ge=0)
    """Versions that were promoted so recently stay too: calls and jobs may be using them."""
    sync_health: str = ""
    """``host:port`` of the gRPC health service; none where empty."""
