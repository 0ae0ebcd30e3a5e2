# SPDX-License-Identifier: GPL-3.0-or-later
"""Size, shape and place of every particle of a label image."""

from granulo_analyzer.domain.morphology.columns import column_names
from granulo_analyzer.domain.morphology.measure import ParticleTable, check_amodal, measure

__all__ = ["ParticleTable", "check_amodal", "column_names", "measure"]
