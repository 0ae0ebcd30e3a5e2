# SPDX-License-Identifier: GPL-3.0-or-later
"""The page from which a person picks a checkpoint (M18, the visual way)."""
