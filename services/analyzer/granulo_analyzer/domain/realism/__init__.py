# SPDX-License-Identifier: GPL-3.0-or-later
"""How much alike real and synthetic micrographs are: patches, map, numbers (M11)."""
