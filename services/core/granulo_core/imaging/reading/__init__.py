# SPDX-License-Identifier: GPL-3.0-or-later
"""What instruments write: one module a family of formats, all behind `imaging.read`."""
