# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m granulo_segmenter``: the segmenter as a server of its own."""

from granulo_core.rpc.serve import serve_service
from granulo_segmenter.servicer import build
from granulo_segmenter.settings import SegmenterSettings

if __name__ == "__main__":
    serve_service("segmenter", build, SegmenterSettings.load)
