# SPDX-License-Identifier: GPL-3.0-or-later
"""The segmenter service: label images from micrographs."""
