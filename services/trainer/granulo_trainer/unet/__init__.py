# SPDX-License-Identifier: GPL-3.0-or-later
"""U-Nets in TensorFlow."""
