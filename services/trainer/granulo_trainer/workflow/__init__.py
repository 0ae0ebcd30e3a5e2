# SPDX-License-Identifier: GPL-3.0-or-later
"""One module an operation: checks its request, plans its tasks, commits its result."""
