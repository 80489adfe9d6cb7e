"""A SOCKS5 proxy on this machine that takes every client to one port, whatever host it asks for."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class Socks:
    """Its port, and the hosts that it was asked for."""

    port: int
    asked: list[str] = field(default_factory=list)


@contextlib.contextmanager
def socks(target: int) -> Iterator[Socks]:
    """Without passwords, by names only: what RFC 1928 needs for a client to get through."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy = Socks(listener.getsockname()[1])

        def accept() -> None:
            with contextlib.suppress(OSError):  # the listener is closed at the end
                while True:
                    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

        def serve(client: socket.socket) -> None:
            with client, client.makefile("rb") as asks:
                client.settimeout(30)
                _, methods = asks.read(2)
                assert 0 in asks.read(methods)  # without a password
                client.sendall(b"\x05\x00")
                assert asks.read(4) == b"\x05\x01\x00\x03"  # connect, by name
                proxy.asked.append(asks.read(asks.read(1)[0]).decode())
                asks.read(2)  # the port
                with socket.create_connection(("127.0.0.1", target), 30) as server:
                    client.sendall(b"\x05\x00\x00\x01" + bytes(6))
                    back = threading.Thread(target=pipe, args=(server, client), daemon=True)
                    back.start()
                    pipe(client, server)
                    back.join(30)

        def pipe(source: socket.socket, sink: socket.socket) -> None:
            with contextlib.suppress(OSError):
                while piece := source.recv(1 << 16):
                    sink.sendall(piece)
                sink.shutdown(socket.SHUT_WR)

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield proxy
        finally:
            with contextlib.suppress(OSError):  # macOS refuses to shut down a socket that only listens
                listener.shutdown(socket.SHUT_RDWR)  # or a waiting `accept` takes one client more
