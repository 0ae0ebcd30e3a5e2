# SPDX-License-Identifier: GPL-3.0-or-later
"""gRPC servers, interceptors, channels and the ArtifactService."""
