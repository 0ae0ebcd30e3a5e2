# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m granulo_trainer``: the trainer as a server of its own."""

from granulo_core.rpc.serve import serve_service
from granulo_trainer.servicer import build
from granulo_trainer.settings import TrainerSettings

if __name__ == "__main__":
    serve_service("trainer", build, TrainerSettings.load)
