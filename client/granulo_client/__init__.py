# SPDX-License-Identifier: Apache-2.0
"""Typed Python client of Granulo and the `granulo` command."""
