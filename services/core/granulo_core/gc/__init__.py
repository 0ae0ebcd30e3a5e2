# SPDX-License-Identifier: GPL-3.0-or-later
"""Garbage collection: objects that nothing refers to, and records that nobody keeps."""
