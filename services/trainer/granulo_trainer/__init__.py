# SPDX-License-Identifier: GPL-3.0-or-later
"""The trainer service: networks from rendered datasets."""
