# SPDX-License-Identifier: GPL-3.0-or-later
"""Which engine the settings choose."""

from granulo_core.engine.local import LocalEngine
from granulo_core.engine.port import Engine
from granulo_core.settings import CoreSettings


def open_engine(settings: CoreSettings) -> Engine:
    """Open the engine that ``engine`` names.

    Raises
    ------
    GranuloError
        EXTRA_NOT_INSTALLED where Ray is chosen and not installed.
    """
    if settings.engine == "ray":
        # Imported by who uses it only: it takes a second.
        from granulo_core.engine.ray import RayEngine

        return RayEngine(settings.ray_address, settings.ray_token_file, settings.ray_node_cpus)
    return LocalEngine(cpus=settings.workers or None)
