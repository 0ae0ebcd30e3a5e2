# SPDX-License-Identifier: GPL-3.0-or-later
"""Figures and the self-contained HTML report."""
