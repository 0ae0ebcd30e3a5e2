# SPDX-License-Identifier: Apache-2.0
"""Files that appear only once they are whole."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from granulo_client.errors import UsageError


@contextmanager
def write_whole(target: Path) -> Iterator[IO[bytes]]:
    """Open a file that takes its name when the ``with`` block ends well, and vanishes otherwise.

    Raises
    ------
    UsageError
        The file cannot be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    except OSError as error:
        raise _unwritable(target, error) from error
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        # Not the private mode of temporary files: results are for the user's colleagues too.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(target)
    except OSError as error:
        raise _unwritable(target, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def _unwritable(target: Path, error: OSError) -> UsageError:
    return UsageError(f"{target} cannot be written: {error.strerror}. Choose another folder.")
