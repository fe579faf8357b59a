"""Check under which name a server was reached, as a defence against DNS rebinding.

The owner of evil.example can make this name resolve to 127.0.0.1, or to another address in the
network of somebody who visits evil.example. The visitor's browser then takes a server at that
address for evil.example: the page may send it any request and read every answer, and `Origin`
equals `Host`. But `Host` has the name evil.example, so the attack shows there. It cannot show an
IP address or a name without dots, because nobody can register these on the internet.
"""

from __future__ import annotations

import ipaddress
import re

_HOST = re.compile(r"(\[[^\]]*\]|[^:]*)(?::[0-9]*)?")
_LABEL = re.compile(r"[A-Za-z0-9_-]+")  # with "_", which services of CI jobs have in their names


def cannot_be_rebound(host: str | None) -> bool:
    """Whether a `Host` is an IP address, a name without dots such as `localhost`, or missing.

    A missing one is safe, because browsers always send it.
    """
    if not host:
        return True
    name = _name_in(host)
    if name is None:
        return False
    if _LABEL.fullmatch(name):
        return True
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def is_named(host: str | None, names: frozenset[str]) -> bool:
    """Whether a `Host` is one of these names, which are in lower case. The port is ignored."""
    return (_name_in(host or "") or "").lower() in names


def _name_in(host: str) -> str | None:
    match = _HOST.fullmatch(host)
    return None if match is None else match[1]
