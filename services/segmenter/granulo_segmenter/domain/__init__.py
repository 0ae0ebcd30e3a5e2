# SPDX-License-Identifier: GPL-3.0-or-later
"""Tiling and stitching: pure functions."""
