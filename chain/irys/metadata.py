"""What a gateway says about an item, and the verified item that this makes together with the content."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass

from chain.errors import InvalidData
from chain.irys.dataitem import ED25519, SOLANA, DataItem, ItemId, Tag, is_unicode, text_readings


@dataclass(frozen=True, slots=True)
class ItemMetadata:
    """What `/tx/<id>` says of an item, unverified: texts as the gateway sent them, empty where it did not."""

    id: ItemId
    signature: str
    owner: str
    target: str
    anchor: str
    tags: tuple[Tag, ...]

    @classmethod
    def parse(cls, item_id: ItemId, value: object) -> ItemMetadata:
        """From decoded JSON; InvalidData if it is not an object of texts and tags."""
        if not isinstance(value, dict):
            raise InvalidData(f"The metadata of item {item_id} is not a JSON object.")
        texts: dict[str, str] = {}
        for name in ("signature", "owner", "target", "anchor"):
            text = value.get(name) or ""
            if not isinstance(text, str) or len(text) > 200 or not is_unicode(text):
                raise InvalidData(f"The {name} in the metadata of item {item_id} is not a short text.")
            texts[name] = text
        tags: list[Tag] = []
        listed = value.get("tags") or []
        if not isinstance(listed, list):
            raise InvalidData(f"The tags in the metadata of item {item_id} are not a list.")
        for tag in listed:
            if not (isinstance(tag, dict) and isinstance(tag.get("name"), str) and isinstance(tag.get("value"), str)):
                raise InvalidData(f"A tag in the metadata of item {item_id} is not a name and a value.")
            tags.append((tag["name"], tag["value"]))
        return cls(id=item_id, tags=tuple(tags), **texts)

    def rebuild(self, data: bytes) -> DataItem | None:
        """The signed item that `data` and this metadata make, or None if they make none.

        Texts may be base58 or base64url, the anchor its own 32 characters too, and the signature type is not
        always given: every reading is tried, and only one whose id and signature hold is the item.
        """
        signatures = [
            raw for raw in text_readings(self.signature, 64) if hashlib.sha256(raw).digest() == bytes(self.id)
        ]
        anchors = text_readings(self.anchor, 32)
        if len(self.anchor.encode()) == 32:
            anchors.insert(0, self.anchor.encode())
        readings = itertools.product(
            signatures,
            text_readings(self.owner, 32),
            text_readings(self.target, 32) if self.target else [b""],
            anchors if self.anchor else [b""],
            (SOLANA, ED25519),
        )
        for signature, owner, target, anchor, kind in readings:
            item = DataItem(kind, signature, owner, target, anchor, self.tags, data)
            if item.is_valid:
                return item
        return None
