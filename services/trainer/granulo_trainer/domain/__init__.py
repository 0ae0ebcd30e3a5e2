# SPDX-License-Identifier: GPL-3.0-or-later
"""Pure parts of training: configuration, figures and the choice of a checkpoint."""
