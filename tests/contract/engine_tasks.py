# SPDX-License-Identifier: GPL-3.0-or-later
"""Tasks that the tests of engine and operations run in real worker processes."""

import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path

from granulo_core.engine.port import TaskContext
from granulo_core.errors import GranuloError, Reason


def double(context: TaskContext, payload: bytes) -> bytes:
    return payload * 2


def describe(context: TaskContext, payload: bytes) -> bytes:
    """Everything that a task can see of its surroundings."""
    facts = {
        "store_url": context.store_url,
        "operation": context.operation,
        "task_id": context.task_id,
        "attempt": context.attempt,
        "pid": os.getpid(),
        "threads": os.environ["OMP_NUM_THREADS"],
    }
    return json.dumps(facts).encode()


def occupy(context: TaskContext, payload: bytes) -> bytes:
    """Begin and end on the machine's clock, and the process, of a short stay."""
    begin_s = time.monotonic()
    time.sleep(float(payload))
    return json.dumps([begin_s, time.monotonic(), os.getpid()]).encode()


def refuse(context: TaskContext, payload: bytes) -> bytes:
    raise GranuloError(
        Reason.IMAGE_TOO_LARGE, "The image is 7 px too wide.", metadata={"width_px": "7"}
    )


def divide(context: TaskContext, payload: bytes) -> bytes:
    return bytes([1 // 0])


def leave(context: TaskContext, payload: bytes) -> bytes:
    sys.exit("enough")


def return_text(context: TaskContext, payload: bytes) -> bytes:
    return payload.decode()  # type: ignore[return-value]  # the mistake under test


def crash_before(context: TaskContext, payload: bytes) -> bytes:
    """Die as a native library does in every attempt before the one that the payload names."""
    if context.attempt < int(payload):
        os.kill(os.getpid(), signal.SIGSEGV)
    return b"attempt %d" % context.attempt


def work_in_native_code(context: TaskContext, payload: bytes) -> bytes:
    """Leave the process id in a file, then be for minutes where Python handles no signal."""
    leave_pid(payload)
    return hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)


def wait_for_file(context: TaskContext, payload: bytes) -> bytes:
    """Leave the process id in a file, then wait until the file ``<path>.go`` is there."""
    leave_pid(payload)
    go = Path(payload.decode() + ".go")
    while not go.exists():
        time.sleep(0.02)
    return b"went"


def leave_pid(payload: bytes) -> None:
    path = Path(payload.decode())
    part = path.with_suffix(f".part{os.getpid()}")
    part.write_text(str(os.getpid()))
    part.replace(path)
