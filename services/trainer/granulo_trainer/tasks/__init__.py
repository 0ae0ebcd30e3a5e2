# SPDX-License-Identifier: GPL-3.0-or-later
"""What the engine's workers run: one module an entry point."""
