# SPDX-License-Identifier: GPL-3.0-or-later
"""Functions on images and label images."""
