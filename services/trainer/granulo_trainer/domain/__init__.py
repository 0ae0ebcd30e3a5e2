# SPDX-License-Identifier: GPL-3.0-or-later
"""Configuration, metrics and selection: pure functions."""
