"""Folders on Irys: an item that lists paths, each with the id of the item that holds the file.

The official client's folder uploads make them: `{"manifest": "irys/paths", "version": "0.1.0", "index": {"path": …},
"paths": {path: {"id": …}}}`, under the content type `application/x.irys-manifest+json` (Arweave's own alike).
"""

from __future__ import annotations

import json

from chain.irys.dataitem import DataItem

TYPES = ("application/x.irys-manifest+json", "application/x.arweave-manifest+json")
_KINDS = ("irys/paths", "arweave/paths")


def resolve(item: DataItem, path: str) -> str | None:
    """The id, as it is written, of the file at `path` in the folder `item`; "" is its index.

    None where the item is not a folder or has no such file.
    """
    if item.tag("Content-Type") not in TYPES:
        return None
    try:
        manifest = json.loads(item.data)
    except (ValueError, RecursionError):
        return None
    match manifest:
        case {"manifest": str(kind), "paths": dict(paths)} if kind in _KINDS:
            index = manifest.get("index")
            wanted = path or (index.get("path") if isinstance(index, dict) else None)
            found = paths.get(wanted) if isinstance(wanted, str) else None
            if isinstance(found, dict) and isinstance(found.get("id"), str):
                return str(found["id"])
    return None
