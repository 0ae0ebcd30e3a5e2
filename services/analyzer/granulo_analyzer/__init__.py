# SPDX-License-Identifier: GPL-3.0-or-later
"""The analyzer service: particle statistics from label images."""
