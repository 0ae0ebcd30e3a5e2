# SPDX-License-Identifier: GPL-3.0-or-later
"""The render service: labelled scenes of particles from a recipe."""
