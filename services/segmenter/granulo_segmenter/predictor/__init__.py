# SPDX-License-Identifier: GPL-3.0-or-later
"""Model serving: the client of PredictionService and the embedded model server."""
