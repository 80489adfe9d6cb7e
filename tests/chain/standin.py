"""Executables that stand in for a validator: the same command line, behind it the embedded ledger's JSON-RPC."""

from __future__ import annotations

import sys
from pathlib import Path

_SOURCE = """#!{python}
import json, os, signal, sys, time
from pathlib import Path

print("started with", *sys.argv[1:], flush=True)
Path("seen.json").write_text(json.dumps([sys.argv[1:], dict(os.environ)]))
given = dict(zip(sys.argv[1:], sys.argv[2:]))
slots = [{"confirmed": 40, "finalized": 9}]  # one after the other, each until it was asked for both
{behaviour}

import chain.localnet.server
from chain.localnet.methods import Methods
from chain.network.embedded import EmbeddedNetwork
from solders.pubkey import Pubkey

if sys.argv[1] == "start":  # Surfpool: in memory, its program comes later
    folder, port = Path("memory-%d" % os.getpid()), given["--port"]
    program, image = Pubkey(bytes([7] * 32)), None
else:
    folder, port = Path(given["--ledger"]), given["--rpc-port"]
    at = sys.argv.index("--bpf-program")
    program, image = Pubkey.from_string(sys.argv[at + 1]), Path(sys.argv[at + 2]).read_bytes()
network = EmbeddedNetwork(folder, program_id=program, image=image)
table = Methods.__init__


def extended(methods, network, port):
    def write_program(params):
        network._svm.add_program(params.key(0), bytes.fromhex(params.text(1)))
        network.program_id = params.key(0)
        return None

    def get_slot(params):
        pair, commitment = slots[0], params.config(0)["commitment"]
        if commitment == "finalized" and len(slots) > 1:
            slots.pop(0)
        return pair[commitment]

    table(methods, network, port)
    methods.table["getSlot"] = get_slot
    if sys.argv[1] == "start":
        methods.table["surfnet_writeProgram"] = write_program


Methods.__init__ = extended
chain.localnet.server.serve(network, port=int(port)).run()
"""
DELAYED = "time.sleep(0.5)"
EXITS = 'print("Error: the ledger is of another version", flush=True); sys.exit(7)'
SILENT = "time.sleep(600)"
BEHIND = """
from http.server import BaseHTTPRequestHandler, HTTPServer
class Behind(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        body = b'{"jsonrpc": "2.0", "id": 1, "error": {"code": -32005, "message": "Node is behind by 42 slots"}}'
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
HTTPServer(("127.0.0.1", int(given["--rpc-port"])), Behind).serve_forever()
"""
HANGS_ONCE = """
if Path(given["--ledger"]).exists() and not Path("hung").exists():  # on an old ledger, as Agave's did
    Path("hung").touch(); time.sleep(600)
"""
REPLAYS = """
slots[:0] = [{"confirmed": slot, "finalized": slot} for slot in (0, 5, 36)]  # Agave 4.1 going through its old blocks
"""
STUBBORN = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
LATER_DIES = """
import threading
threading.Timer(2, lambda: (print("panicked", flush=True), os._exit(101))).start()
"""


def make(path: Path, behaviour: str = "") -> Path:
    """An executable at `path` that does `behaviour` before it serves."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_SOURCE.replace("{python}", sys.executable).replace("{behaviour}", behaviour))
    path.chmod(0o755)
    return path
