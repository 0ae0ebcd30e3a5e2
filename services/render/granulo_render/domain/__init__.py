# SPDX-License-Identifier: GPL-3.0-or-later
"""Recipes, sampling, shapes and placement: pure functions."""
