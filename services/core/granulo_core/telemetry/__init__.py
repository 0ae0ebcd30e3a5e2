# SPDX-License-Identifier: GPL-3.0-or-later
"""What a running installation says of itself: logs, metrics and traces."""
