"""Who may use a server on this machine: requests that name it by a loopback name, and the pages of such servers.

Another name in `Host` is a web page that rebound its DNS; another `Origin` is a page from elsewhere.
"""

from __future__ import annotations

import re
from typing import Final

LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
LOCAL_ORIGIN: Final = re.compile(r"https?://(localhost|127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?")
"""The `Origin` of a page of this machine, whole."""


def is_loopback(host: str) -> bool:
    """Whether a `Host` header names this machine."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return name.lower() in LOOPBACK


def cors(origin: str) -> dict[str, str]:
    """The headers that let a page of this machine read an answer; none for any other origin."""
    if not LOCAL_ORIGIN.fullmatch(origin):
        return {}
    return {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Allow-Methods": "GET, HEAD, POST, OPTIONS",
        "Access-Control-Allow-Headers": "*",
        "Access-Control-Expose-Headers": "*",
        "Access-Control-Max-Age": "86400",
        "Vary": "Origin",
    }
