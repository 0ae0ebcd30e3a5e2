# SPDX-License-Identifier: GPL-3.0-or-later
"""Which addresses never leave the machine."""

import ipaddress


def is_loopback(address: str) -> bool:
    """Whether ``host:port``, ``host`` or ``unix:path`` stays on this machine.

    Names other than ``localhost`` do not count, whatever they resolve to today.
    """
    if address.startswith("unix:"):
        return True
    host = address.removeprefix("dns:").lstrip("/")
    if host.startswith("["):
        host = host[1:].partition("]")[0]
    elif host.count(":") == 1:
        host = host.partition(":")[0]
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
