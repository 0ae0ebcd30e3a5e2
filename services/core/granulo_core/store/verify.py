# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m granulo_core.store.verify``: compare with its digest whatever in the store has one.

That is what manifests list, what references to served models list, and uploads, whose names are
their digests. Exit codes: 0 all is whole, 1 something is damaged or missing, 2 the store cannot be
read.
"""

import json
import re
import sys
from collections.abc import Callable, Iterator
from functools import partial

from granulo_core.errors import GranuloError, Reason
from granulo_core.settings import CoreSettings
from granulo_core.store import manifest as manifests
from granulo_core.store import open_store
from granulo_core.store.port import ObjectStore
from granulo_core.store.tenants import PREFIX, tenant_url

_DAMAGE = (Reason.DIGEST_MISMATCH, Reason.RESOURCE_NOT_FOUND)
_UPLOAD = re.compile(r"uploads/([0-9a-f]{64})")


def main() -> int:
    """Verify the store of ``GRANULO_STORE_URL`` and those of its tenants."""
    damaged = count = 0
    try:
        root = open_store(CoreSettings.load().store_url)
        for store in _stores(root):
            for name, check in _checks(store):
                count += 1
                try:
                    check()
                except GranuloError as error:
                    if error.reason not in _DAMAGE:
                        raise
                    damaged += 1
                    sys.stdout.write(f"{store.url}: {name}: {error.message}\n")
    except GranuloError as error:
        sys.stderr.write(f"{error.message}\n")
        return 2
    sys.stdout.write(f"{count - damaged} of {count} things are whole\n")
    return 1 if damaged else 0


def _checks(store: ObjectStore) -> Iterator[tuple[str, Callable[[], None]]]:
    """What is verified, by name, and how."""
    for name in manifests.all_resources(store):
        yield name, partial(_verify_resource, store, name)
    for key in store.list("refs/"):
        yield key, partial(_verify_reference, store, key)
    for key in store.list("uploads/"):
        if match := _UPLOAD.fullmatch(key):
            yield key, partial(manifests.verify_object, store, key, f"sha256:{match[1]}")


def _verify_resource(store: ObjectStore, name: str) -> None:
    manifests.verify(store, manifests.load(store, name))


def _verify_reference(store: ObjectStore, key: str) -> None:
    try:
        objects = json.loads(store.get(key)).get("objects", ())
        listed = [(item["key"], item["digest"]) for item in objects]
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise GranuloError(Reason.DIGEST_MISMATCH, f"{key} is damaged ({error}).") from error
    for named, digest in listed:
        manifests.verify_object(store, named, digest)


def _stores(root: ObjectStore) -> Iterator[ObjectStore]:
    yield root
    for tenant in root.children(PREFIX):
        yield open_store(tenant_url(root.url, tenant))


if __name__ == "__main__":
    sys.exit(main())
