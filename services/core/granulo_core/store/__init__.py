# SPDX-License-Identifier: GPL-3.0-or-later
"""Object store: the port, its adapters and the manifests that make things exist."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from granulo_core.errors import FieldViolation, invalid_fields
from granulo_core.store.local import LocalStore
from granulo_core.store.port import ObjectStore, StoredObject, digest_of

__all__ = ["LocalStore", "ObjectStore", "StoredObject", "digest_of", "open_store"]


def open_store(url: str) -> ObjectStore:
    """Open the store at an address.

    Parameters
    ----------
    url : str
        ``file:///folder`` or a plain path for a folder, which is made where it is missing;
        ``s3://bucket/prefix?endpoint=http://host:port&region=name`` for an S3 bucket, with the
        keys in ``GRANULO_S3_ACCESS_KEY`` and ``GRANULO_S3_SECRET_KEY``.

    Returns
    -------
    ObjectStore
        Opening an S3 store sends nothing; `ObjectStore.check_writable` tells whether it answers.

    Raises
    ------
    GranuloError
        FIELD_INVALID for an address of another form, STORE_NOT_WRITABLE where the folder cannot
        be made.
    """
    parts = urlsplit(url)
    if parts.scheme == "s3":
        # Only who uses S3 pays for importing its client.
        from granulo_core.store.s3 import S3Store

        return S3Store.from_url(url)
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path.startswith("/"):
        return LocalStore(Path(unquote(parts.path)))
    if url and "://" not in url and not url.startswith("file:"):
        return LocalStore(Path(url).expanduser())
    raise invalid_fields(
        [
            FieldViolation(
                "store_url",
                f"{url!r} is no store address; use a folder, file:///folder, or "
                "s3://bucket/prefix?endpoint=http://host:port.",
            )
        ]
    )
