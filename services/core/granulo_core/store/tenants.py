# SPDX-License-Identifier: GPL-3.0-or-later
"""The stores of tenants: each is a store of its own below ``tenants/<tenant>/`` of the root.

A tenant's store is opened by its own address. So whatever has an address has the tenant's view: a
worker process that opens it, an operation that hands it on, a model server's sync.
"""

import re
from urllib.parse import urlsplit, urlunsplit

PREFIX = "tenants/"
_TENANT = re.compile(r"/tenants/([a-z0-9-]+)/?$")


def tenant_url(url: str, tenant: str) -> str:
    """Address of a tenant's store.

    Parameters
    ----------
    url : str
        As `ObjectStore.url` gives it.
    tenant : str
        Checked already: letters a to z, digits and hyphens.
    """
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{PREFIX}{tenant}"))


def tenant_of(url: str) -> str:
    """Tenant of a store's address; empty for the root."""
    found = _TENANT.search(urlsplit(url).path)
    return found.group(1) if found else ""
