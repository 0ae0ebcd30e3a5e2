# SPDX-License-Identifier: GPL-3.0-or-later
"""All Granulo services, the model server and the store on one machine."""
