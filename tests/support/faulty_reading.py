# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading that does to its process what a file says: ``CRASH`` kills it, ``HANG`` never ends."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import granulo_segmenter.files
from granulo_core.imaging import labels, read

CRASH, HANG = b"CRASH", b"HANG"


def _obey(data: bytes | Path) -> None:
    content = data.read_bytes() if isinstance(data, Path) else data
    if content == CRASH:
        os.kill(os.getpid(), signal.SIGSEGV)
    if content == HANG:
        time.sleep(600)


def read_micrograph(data: bytes | Path, **options: Any) -> read.Micrograph:
    _obey(data)
    return read.read_micrograph(data, **options)


def decode_labels(data: bytes | Path, **options: Any) -> Any:
    _obey(data)
    return labels.decode_labels(data, **options)


def check_pages(file: Path, **options: Any) -> int:
    _obey(file)
    return granulo_segmenter.files.check_pages(file, **options)
