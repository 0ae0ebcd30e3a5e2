# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m granulo_render``: the renderer as a server of its own."""

from granulo_core.rpc.serve import serve_service
from granulo_render.servicer import build
from granulo_render.settings import RenderSettings

if __name__ == "__main__":
    serve_service("render", build, RenderSettings.load)
