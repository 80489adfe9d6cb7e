"""`/graphql` of a local Irys node: items by id, owner, tag and time, as the official clients ask for them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from graphql import GraphQLSchema, build_schema, graphql_sync

from chain.errors import InvalidData
from chain.irys.dataitem import base64url, text_readings
from chain.irys.items import Entry, LocalNode

_MAX_PAGE = 100
_SCHEMA = """
type Query {
  transaction(id: String!): Transaction
  transactions(
    ids: [String!], owners: [String!], token: String, currency: String, tags: [TagFilter!], timestamp: Period,
    first: Int = 10, limit: Int, after: String, order: Order = ASC, hasTags: Boolean
  ): Connection!
}
input TagFilter { name: String!, values: [String!]! }
input Period { from: Float, to: Float }
enum Order { ASC DESC }
type Connection { edges: [Edge!]!, pageInfo: PageInfo! }
type PageInfo { hasNextPage: Boolean!, endCursor: String }
type Edge { node: Transaction!, cursor: String! }
type Tag { name: String!, value: String! }
type Receipt { deadlineHeight: Int!, signature: String!, timestamp: Float!, version: String! }
type Transaction {
  id: String!, address: String!, token: String!, currency: String!, signature: String!, timestamp: Float!,
  size: String!, tags: [Tag!]!, receipt: Receipt
}
"""


@cache
def _schema() -> GraphQLSchema:
    return build_schema(_SCHEMA)


def query(node: LocalNode, request: object) -> dict[str, Any]:
    """The answer to a GraphQL request; InvalidData if it is none."""
    match request:
        case {"query": str(text), **rest}:
            variables = rest.get("variables") or {}
        case _:
            raise InvalidData('The body must be {"query": a GraphQL query}.')
    if not isinstance(variables, dict):
        raise InvalidData("GraphQL variables must be an object.")
    return graphql_sync(_schema(), text, _Root(node), variable_values=variables).formatted  # type: ignore[return-value]


class _Root:
    """The queries; GraphQL calls each with its arguments by name."""

    def __init__(self, node: LocalNode) -> None:
        self._node = node

    def transaction(self, _: object, id: str) -> dict[str, Any] | None:
        held = [entry for entry in self._node.entries() if entry.id in text_readings(id, 32)]
        return self._shown(held[0]) if held else None

    def transactions(
        self, _: object, *, first: int, order: str, limit: int | None = None, after: str | None = None, **wanted: Any
    ) -> dict[str, Any]:
        held = [entry for entry in self._node.entries() if _meets(entry, wanted)]
        if order == "DESC":
            held.reverse()
        start = next((at + 1 for at, entry in enumerate(held) if str(entry.id) == after), 0)
        count = max(0, min(first if limit is None else limit, _MAX_PAGE))
        page = held[start : start + count]
        return {
            "edges": [{"node": self._shown(entry), "cursor": str(entry.id)} for entry in page],
            "pageInfo": {
                "hasNextPage": start + count < len(held),
                "endCursor": str(page[-1].id) if page else None,
            },
        }

    def _shown(self, entry: Entry) -> dict[str, Any]:
        return {
            "id": str(entry.id),
            "address": entry.owner,
            "token": "solana",
            "currency": "solana",
            "signature": base64url(entry.signature),
            "timestamp": entry.timestamp,
            "size": str(entry.size),
            "tags": [{"name": name, "value": value} for name, value in entry.tags],
            "receipt": lambda _: self._node.receipt(entry.id).json(),  # signed only where it is asked for
        }


def _meets(entry: Entry, wanted: Mapping[str, Any]) -> bool:
    ids, owners, tags = wanted.get("ids"), wanted.get("owners"), wanted.get("tags") or ()
    period = wanted.get("timestamp") or {}
    named = (wanted.get("token"), wanted.get("currency"))
    return (
        (ids is None or any(entry.id in text_readings(text, 32) for text in ids))
        and (owners is None or entry.owner in owners)
        and all(name in (None, "solana") for name in named)
        and all(any((tag["name"], value) in entry.tags for value in tag["values"]) for tag in tags)
        and period.get("from", 0) <= entry.timestamp <= period.get("to", float("inf"))
        and (not wanted.get("hasTags") or bool(entry.tags))
    )
