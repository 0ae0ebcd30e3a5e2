# SPDX-License-Identifier: GPL-3.0-or-later
"""The bytes of an image file, in memory or on disk, read by offset and never beyond their end."""

import io
import os
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from granulo_core.imaging.reading.problems import cut_off, unreadable


class _ClampedFile(io.BufferedReader):
    """A file whose `read` never asks for more than there is.

    A damaged file may declare a field of 2^40 bytes; Python would allocate them before reading.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self._size = os.fstat(self.fileno()).st_size

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(0, self._size - self.tell())
        return super().read(left if size is None or size < 0 else min(size, left))


class Source:
    """An image file's content.

    Files are read, not mapped: a mapped file that someone shortens ends the process.

    Parameters
    ----------
    data : bytes or Path
        The content, or where it lies.
    name : str
        What the user calls the file, for messages.

    Raises
    ------
    GranuloError
        IMAGE_UNREADABLE for a file that cannot be opened or is empty.
    """

    def __init__(self, data: bytes | Path, name: str) -> None:
        self.name = name
        self.path = data if isinstance(data, Path) else None
        """Where the file lies; None for bytes in memory, which have no neighbours."""
        self.is_folder = self.path is not None and self.path.is_dir()
        """A folder has no bytes of its own."""
        self.file: BinaryIO
        try:
            if self.is_folder:
                self.file, self.size_bytes = io.BytesIO(), 0
            elif isinstance(data, Path):
                self.file = _ClampedFile(data)
                self.size_bytes = os.fstat(self.file.fileno()).st_size
            else:
                self.file = io.BytesIO(data)
                self.size_bytes = len(data)
        except OSError as error:
            raise unreadable(name, f"cannot be opened ({error.strerror or error})") from error
        if self.size_bytes == 0 and not self.is_folder:
            self.close()
            raise unreadable(name, "is empty (0 bytes); copy it again from the microscope")

    def read_at(self, offset: int, count: int) -> bytes:
        """``count`` bytes from ``offset`` on.

        Raises
        ------
        GranuloError
            IMAGE_UNREADABLE where the file ends before.
        """
        if offset < 0 or count < 0 or offset + count > self.size_bytes:
            raise cut_off(self.name, offset + count, self.size_bytes)
        self.file.seek(offset)
        found = self.file.read(count)
        if len(found) != count:
            raise cut_off(self.name, offset + count, offset + len(found))
        return found

    def head(self, count: int) -> bytes:
        """The first ``count`` bytes, or fewer of a shorter file."""
        return self.read_at(0, min(count, self.size_bytes))

    def close(self) -> None:
        """Close the file."""
        file = getattr(self, "file", None)
        if file is not None:
            file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
