# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m granulo_analyzer``: the analyzer as a server of its own."""

from granulo_analyzer.servicer import build
from granulo_analyzer.settings import AnalyzerSettings
from granulo_core.rpc.serve import serve_service

if __name__ == "__main__":
    serve_service("analyzer", build, AnalyzerSettings.load)
