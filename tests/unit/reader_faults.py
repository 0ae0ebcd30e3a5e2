# SPDX-License-Identifier: GPL-3.0-or-later
"""What a decoder may do to its process; imported by the processes that read."""

import os
import signal
import time


def crash(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def hang(*_: object, **__: object) -> None:
    time.sleep(600)


def hoard(*_: object, **__: object) -> int:
    return len(bytearray(1 << 34))
