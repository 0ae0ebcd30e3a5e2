# SPDX-License-Identifier: GPL-3.0-or-later
"""The object store in a folder: atomic, durable writes and plain files that users can look at."""

import errno
import fcntl
import hashlib
import io
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Literal

from granulo_core.errors import (
    FieldViolation,
    GranuloError,
    Reason,
    invalid_fields,
    not_found,
)
from granulo_core.store.keys import check_folder, check_key, check_prefix, media_type_of
from granulo_core.store.measured import measured
from granulo_core.store.port import ListedObject, StoredObject, digest_of

# Begins with a dot, so that no key can name it.
_TEMPORARY = ".tmp"
_COPY_BYTES = 1 << 20
_MOVE_ATTEMPTS = 100


@measured
class LocalStore:
    """Objects as files below one folder.

    A write goes to a temporary file on the same file system, which is flushed to the disk and then
    takes the key's place in one step; a reader or a crash sees the old object or the new one. The
    writer holds a lock on its temporary file: what another process finds unlocked was left behind
    by a writer that died, and is removed at the next start.

    Parameters
    ----------
    root : Path
        Data folder; made where it is missing.

    Raises
    ------
    GranuloError
        STORE_NOT_WRITABLE when the folder cannot be made, STORE_FULL when no space is left.
    """

    def __init__(self, root: Path) -> None:
        self._root = Path(os.path.realpath(root))
        self._temporary = self._root / _TEMPORARY
        try:
            self._root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _translate(error, self._root) from error
        self._remove_leftovers()

    @property
    def root(self) -> Path:
        """The data folder, absolute and without symbolic links."""
        return self._root

    @property
    def url(self) -> str:
        """Address from which `open_store` makes an equal store in another process."""
        return self._root.as_uri()

    def put(self, key: str, data: bytes, media_type: str = "") -> StoredObject:
        """Write (or replace) an object atomically and durably."""
        return self._write(key, io.BytesIO(data), media_type)

    def put_file(self, key: str, path: Path, media_type: str = "") -> StoredObject:
        """Like `put`, from a file, without holding it in memory."""
        try:
            source = path.open("rb")
        except OSError as error:
            raise unreadable_file(path, error) from error
        with source:
            return self._write(key, source, media_type)

    def get(self, key: str, expected_digest: str | None = None) -> bytes:
        """Read an object; bytes that differ from ``expected_digest`` raise DIGEST_MISMATCH."""
        with self._open(key) as source:
            data = source.read()
        if expected_digest is not None:
            check_digest(f"object {key}", digest_of(data), expected_digest)
        return data

    def get_file(self, key: str, path: Path, expected_digest: str | None = None) -> None:
        """Like `get`, into a file (written atomically)."""
        with self._open(key) as source, replacing(path) as target:
            digest, _ = _copy(source, target)
            if expected_digest is not None:
                check_digest(f"object {key}", digest, expected_digest)

    def read_chunks(self, key: str, offset: int = 0, chunk_size: int = 1 << 20) -> Iterator[bytes]:
        """Stream an object from ``offset`` on."""
        check_range(offset, chunk_size)
        with self._open(key) as source:
            source.seek(offset)
            while chunk := source.read(chunk_size):
                yield chunk

    def stat(self, key: str) -> StoredObject:
        """Describe an object; the digest is computed by reading it."""
        with self._open(key) as source:
            digest, size_bytes = _copy(source, None)
        return StoredObject(key, digest, size_bytes, media_type_of(key))

    def exists(self, key: str) -> bool:
        """Tell whether an object exists, without reading it."""
        path = self._path(key)
        try:
            return path.is_file()
        except OSError as error:
            raise _translate(error, path) from error

    def list(self, prefix: str) -> Iterator[str]:
        """Yield all keys that start with ``prefix`` in lexicographic order."""
        yield from self._keys(prefix)

    def children(self, prefix: str) -> Iterator[str]:
        """Yield the names of the folders directly below ``prefix`` in order."""
        check_folder(prefix)
        for name in _entries(self._folder(prefix)):
            if name.endswith("/"):
                yield name[:-1]

    def scan(self, prefix: str) -> Iterator[ListedObject]:
        """Like `list`, with the size and age of each object."""
        for key in self._keys(prefix):
            try:
                found = self._path(key).stat()
            except (FileNotFoundError, NotADirectoryError):
                continue  # deleted meanwhile
            except OSError as error:
                raise _translate(error, self._path(key), writing=False) from error
            yield ListedObject(key, found.st_size, found.st_mtime)

    def delete(self, key: str) -> None:
        """Remove an object, and folders that this leaves empty."""
        path = self._path(key)
        try:
            path.unlink(missing_ok=True)
        except NotADirectoryError:
            return
        except OSError as error:
            raise _translate(error, path) from error
        with suppress(OSError):  # ends at the first folder that still holds something
            for folder in path.parents:
                if folder == self._root:
                    break
                folder.rmdir()

    def presigned(
        self, verb: Literal["GET", "PUT"], key: str, expires_s: int, endpoint: str
    ) -> str:
        """Nothing: files of this machine have no URLs for others."""
        return ""

    def check_writable(self) -> None:
        """Write and remove a probe, to raise at start-up what the first `put` would raise."""
        try:
            with self._temporary_file() as (path, probe):
                probe.write(b"\0" * 4096)
                probe.flush()
                os.fsync(probe.fileno())
                path.unlink()
        except OSError as error:
            raise _translate(error, self._root) from error

    def _path(self, key: str) -> Path:
        path = self._root / check_key(key)
        # A link would let a key name a file outside the store, and outlive what it points to.
        if os.path.realpath(path) != str(path):
            raise invalid_fields(
                [
                    FieldViolation(
                        "key",
                        f"{path} leads through a symbolic link, which the object store does not "
                        "follow. Put the real folder in its place, or mount it there.",
                    )
                ]
            )
        return path

    def _folder(self, prefix: str) -> Path:
        return self._path(prefix[:-1]) if prefix else self._root

    def _open(self, key: str) -> BinaryIO:
        path = self._path(key)
        try:
            return path.open("rb")
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise missing_object(key, self.url) from error
        except OSError as error:
            raise _translate(error, path, writing=False) from error

    def _write(self, key: str, source: BinaryIO, media_type: str) -> StoredObject:
        target = self._path(key)
        try:
            with self._temporary_file() as (path, temporary):
                digest, size_bytes = _copy(source, temporary)
                temporary.flush()
                os.fsync(temporary.fileno())
                self._move(path, target)
        except (NotADirectoryError, FileExistsError, IsADirectoryError) as error:
            raise invalid_fields(
                [
                    FieldViolation(
                        "key",
                        f"{key} is a folder of other objects, or one of its parts is an object.",
                    )
                ]
            ) from error
        except OSError as error:
            raise _translate(error, target) from error
        return StoredObject(key, digest, size_bytes, media_type or media_type_of(key))

    def _move(self, path: Path, target: Path) -> None:
        for attempt in range(_MOVE_ATTEMPTS):
            try:
                _make_folders(target.parent)
                path.replace(target)
                break
            except FileNotFoundError:  # `delete` of a neighbour removed a folder just now
                if attempt + 1 == _MOVE_ATTEMPTS or not path.exists():
                    raise
        with suppress(FileNotFoundError):  # this object was deleted at once, and its folder
            _sync_folder(target.parent)

    @contextmanager
    def _temporary_file(self) -> Iterator[tuple[Path, BinaryIO]]:
        self._temporary.mkdir(exist_ok=True)
        while True:
            path = self._temporary / secrets.token_hex(12)
            with path.open("xb") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                if os.fstat(file.fileno()).st_nlink == 0:
                    continue  # taken for a leftover between its creation and the lock
                try:
                    yield path, file
                finally:
                    path.unlink(missing_ok=True)
                return

    def _remove_leftovers(self) -> None:
        with suppress(OSError):  # another's files or a read-only folder: no reason to refuse reads
            for path in self._temporary.iterdir():
                with suppress(OSError), path.open("rb") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink(missing_ok=True)

    def _keys(self, prefix: str) -> Iterator[str]:
        check_prefix(prefix)
        folder = prefix.rpartition("/")[0]
        yield from self._walk(folder + "/" if folder else "", prefix)

    def _walk(self, folder: str, prefix: str) -> Iterator[str]:
        for name in _entries(self._folder(folder)):
            key = folder + name
            if not key.startswith(prefix):
                continue
            if name.endswith("/"):
                yield from self._walk(key, prefix)
            else:
                yield key


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes the place of ``path`` when the block ends without an error."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        with temporary.open("xb") as file:
            yield file
        temporary.replace(path)
    except OSError as error:
        raise _translate(error, path) from error
    finally:
        temporary.unlink(missing_ok=True)


def check_digest(what: str, actual: str, expected: str) -> None:
    """Raise DIGEST_MISMATCH where two digests differ."""
    if actual != expected:
        raise GranuloError(
            Reason.DIGEST_MISMATCH,
            f"The {what} has the digest {actual} instead of {expected}: it was changed or damaged "
            "after it was written. Restore it from a copy, or delete what it belongs to and make "
            "that again.",
            metadata={"expected": expected, "actual": actual},
        )


def check_range(offset: int, chunk_size: int) -> None:
    """Raise FIELD_INVALID for a negative offset or chunks of no bytes."""
    if offset < 0:
        raise invalid_fields([FieldViolation("offset", f"is {offset}, must be 0 or more")])
    if chunk_size < 1:
        raise invalid_fields([FieldViolation("chunk_size", f"is {chunk_size}, must be 1 or more")])


def missing_object(key: str, url: str) -> GranuloError:
    """Make the NOT_FOUND error for an object."""
    return not_found(
        key, f"The object store {url} has no such object; it was deleted or never written."
    )


def unreadable_file(path: Path, error: OSError) -> GranuloError:
    """Make the error for a file that should go into the store and cannot be read."""
    return invalid_fields(
        [FieldViolation("path", f"the file {path} cannot be read: {error.strerror or error}")]
    )


def _copy(source: BinaryIO, target: BinaryIO | None) -> tuple[str, int]:
    sha256 = hashlib.sha256()
    size_bytes = 0
    while chunk := source.read(_COPY_BYTES):
        sha256.update(chunk)
        size_bytes += len(chunk)
        if target is not None:
            target.write(chunk)
    return "sha256:" + sha256.hexdigest(), size_bytes


def _entries(folder: Path) -> list[str]:
    """Names in a folder, those of folders with a slash, in the order of the keys below them."""
    names = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    names.append(entry.name + "/")
                elif entry.is_file(follow_symlinks=False):
                    names.append(entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise _translate(error, folder, writing=False) from error
    return sorted(names)


def _make_folders(folder: Path) -> None:
    if folder.is_dir():
        return
    _make_folders(folder.parent)
    # Not mkdir(exist_ok=True): it fails where `delete` removes the folder between its two looks.
    # What is in the way and no folder is told by the write that follows.
    with suppress(FileExistsError):
        folder.mkdir()
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    # Without it the new name may be lost in a power failure although the bytes are on the disk.
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _translate(error: OSError, path: Path, *, writing: bool = True) -> GranuloError:
    cause = error.strerror or str(error)
    metadata = {"path": str(path), "errno": errno.errorcode.get(error.errno or 0, "")}
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return GranuloError(
            Reason.STORE_FULL,
            f"No space is left for {path} ({cause}). Free space on that disk or delete datasets "
            "that are no longer needed, then repeat the command: finished parts are kept.",
            metadata=metadata,
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        verb = "written" if writing else "read"
        return GranuloError(
            Reason.STORE_NOT_WRITABLE,
            f"{path} cannot be {verb} by the user id {os.geteuid()} ({cause}). Give that user the "
            "right to it, or choose another data folder.",
            metadata=metadata,
        )
    return GranuloError(
        Reason.STORE_UNAVAILABLE,
        f"The object store cannot use {path}: {cause}. Check the disk and the path.",
        metadata=metadata,
    )
