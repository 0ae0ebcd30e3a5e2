# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules that all stores share: which keys are allowed, and which media type a key implies."""

import re
from pathlib import PurePosixPath

from granulo_core.errors import FieldViolation, GranuloError, invalid_fields

MAX_KEY_LENGTH = 700
MAX_PART_LENGTH = 200

_PART = r"[A-Za-z0-9_=-][A-Za-z0-9._=-]*"
_KEY = re.compile(rf"{_PART}(/{_PART})*")
_PREFIX = re.compile(rf"({_PART}/)*({_PART})?")

_DEFAULT_MEDIA_TYPE = "application/octet-stream"
# An own table: the standard library's one differs between machines (it reads /etc/mime.types).
_MEDIA_TYPES = {
    ".avif": "image/avif",
    ".bmp": "image/bmp",
    ".csv": "text/csv",
    ".html": "text/html",
    ".jpeg": "image/jpeg",
    ".jpg": "image/jpeg",
    ".json": "application/json",
    ".jsonl": "application/jsonl",
    ".keras": "application/vnd.keras",
    ".md": "text/markdown",
    ".npy": "application/x-npy",
    ".npz": "application/x-npz",
    ".pb": "application/x-protobuf",
    ".pdf": "application/pdf",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
    ".txt": "text/plain",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
    ".zip": "application/zip",
}


def check_key(key: str) -> str:
    """Return ``key``, or raise FIELD_INVALID where it breaks the port's rule for keys."""
    if len(key) > MAX_KEY_LENGTH:
        raise _invalid(key[:80] + "…", f"has more than {MAX_KEY_LENGTH} characters")
    if not _KEY.fullmatch(key):
        raise _invalid(
            key,
            "must consist of parts of letters, digits and . _ = - joined by /, none of which "
            "begins with a dot",
        )
    if any(len(part) > MAX_PART_LENGTH for part in key.split("/")):
        raise _invalid(key, f"has a part of more than {MAX_PART_LENGTH} characters")
    return key


def check_prefix(prefix: str) -> str:
    """Return ``prefix`` where some key may start with it, or raise FIELD_INVALID."""
    if len(prefix) > MAX_KEY_LENGTH or not _PREFIX.fullmatch(prefix):
        raise _invalid(prefix[:80], "is no beginning of an object key")
    return prefix


def check_folder(prefix: str) -> str:
    """Return ``prefix`` where it is empty or the whole beginning of a key up to a slash."""
    check_prefix(prefix)
    if prefix and not prefix.endswith("/"):
        raise _invalid(prefix, "must end with a slash")
    return prefix


def media_type_of(key: str) -> str:
    """Media type that the key's suffix implies; octet-stream for unknown ones."""
    return _MEDIA_TYPES.get(PurePosixPath(key).suffix.lower(), _DEFAULT_MEDIA_TYPE)


def _invalid(key: str, fault: str) -> GranuloError:
    return invalid_fields([FieldViolation("key", f"the object key {key!r} {fault}.")])
