# SPDX-License-Identifier: GPL-3.0-or-later
"""The object store: one port, adapters for a local folder and for S3."""
