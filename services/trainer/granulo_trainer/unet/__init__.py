# SPDX-License-Identifier: GPL-3.0-or-later
"""The networks and their training: the only place of the trainer that uses TensorFlow."""
