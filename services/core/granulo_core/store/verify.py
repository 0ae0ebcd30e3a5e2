# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m granulo_core.store.verify``: compare everything in the store with its digest.

Exit codes: 0 all is whole, 1 something is damaged or missing, 2 the store cannot be read.
"""

import sys
from collections.abc import Iterator

from granulo_core.errors import GranuloError, Reason
from granulo_core.settings import CoreSettings
from granulo_core.store import manifest as manifests
from granulo_core.store import open_store
from granulo_core.store.port import ObjectStore
from granulo_core.store.tenants import PREFIX, tenant_url

_DAMAGE = (Reason.DIGEST_MISMATCH, Reason.RESOURCE_NOT_FOUND)


def main() -> int:
    """Verify the store of ``GRANULO_STORE_URL`` and those of its tenants."""
    damaged = count = 0
    try:
        root = open_store(CoreSettings.load().store_url)
        for store in _stores(root):
            for name in manifests.all_resources(store):
                count += 1
                try:
                    manifests.verify(store, manifests.load(store, name))
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


def _stores(root: ObjectStore) -> Iterator[ObjectStore]:
    yield root
    for tenant in root.children(PREFIX):
        yield open_store(tenant_url(root.url, tenant))


if __name__ == "__main__":
    sys.exit(main())
