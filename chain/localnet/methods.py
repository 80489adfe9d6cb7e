"""The JSON-RPC methods of the local node: from a request, whatever it holds, to an answer of a real node's shape.

The state is always final, so every commitment gives the same. docs/networks.md lists the methods, and how an answer
differs from that of Agave's `solana-test-validator`.
"""

from __future__ import annotations

import logging

from chain.errors import ChainError
from chain.localnet.accounts import AccountMethods
from chain.localnet.cluster import ClusterMethods
from chain.localnet.context import NodeContext
from chain.localnet.history import HistoryMethods
from chain.localnet.parameters import INTERNAL_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, Params, Refusal
from chain.localnet.sending import SendingMethods
from chain.network.embedded import EmbeddedNetwork

_log = logging.getLogger(__name__)


class Methods:
    """The JSON-RPC methods over one network, served on `port`."""

    def __init__(self, network: EmbeddedNetwork, port: int = 0) -> None:
        context = NodeContext(network)
        self.table = {
            **ClusterMethods(context, port).table,
            **AccountMethods(context).table,
            **SendingMethods(context).table,
            **HistoryMethods(context).table,
        }

    def answer(self, request: object) -> dict[str, object] | None:
        """One request's answer; None for a notification, which gets none. Never raises."""
        identity = request.get("id") if isinstance(request, dict) else None
        answer: dict[str, object] = {"jsonrpc": "2.0"}
        try:
            if not isinstance(request, dict) or request.get("jsonrpc") != "2.0":
                raise Refusal(INVALID_REQUEST, "Invalid request")
            if identity is not None and (isinstance(identity, bool) or not isinstance(identity, str | int)):
                identity = None
                raise Refusal(INVALID_REQUEST, "Invalid request")
            name, params = request.get("method"), request.get("params")
            if not isinstance(name, str):
                raise Refusal(INVALID_REQUEST, "Invalid request")
            if name not in self.table:
                raise Refusal(METHOD_NOT_FOUND, "Method not found")
            answer["result"] = self.table[name](Params([] if params is None else params))
            if "id" not in request:
                return None
        except Refusal as refusal:
            answer["error"] = refusal.json()
        except ChainError as error:
            answer["error"] = {"code": INTERNAL_ERROR, "message": error.message}
        except Exception:
            _log.exception("a request to the local node failed")
            answer["error"] = {"code": INTERNAL_ERROR, "message": "Internal error"}
        return answer | {"id": identity}
