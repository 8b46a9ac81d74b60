"""A TCP proxy on loopback that breaks off connections, or lets them hang, after so many bytes of the answer."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

CHUNK = 1 << 14


@dataclass
class Proxy:
    """What is to happen to the connections that are opened next: each takes the first of `faults`; without any they go through."""

    port: int
    faults: list[tuple[str, int]] = field(default_factory=list)
    """`break` or `hang`, and after how many bytes of the answer."""
    stuck: threading.Event = field(default_factory=threading.Event)
    """Set while a connection hangs."""
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def proxy_to(port: int, *, own_port: int = 0) -> Iterator[Proxy]:
    """Runs a proxy before a server on loopback; on a port of its own choice where none is given."""
    with socket.create_server(("127.0.0.1", own_port)) as listener:
        proxy = Proxy(listener.getsockname()[1])
        threading.Thread(target=_accept, args=(listener, port, proxy), daemon=True).start()
        try:
            yield proxy
        finally:
            proxy.ended.set()
            # A thread that waits in accept would keep the port open.
            listener.shutdown(socket.SHUT_RDWR)


def _accept(listener: socket.socket, port: int, proxy: Proxy) -> None:
    with suppress(OSError):
        while True:
            client, _ = listener.accept()
            server = socket.create_connection(("127.0.0.1", port))
            threading.Thread(target=_forward, args=(client, server), daemon=True).start()
            threading.Thread(target=_answer, args=(server, client, proxy), daemon=True).start()


def _forward(client: socket.socket, server: socket.socket) -> None:
    with suppress(OSError), server:
        while chunk := client.recv(CHUNK):
            server.sendall(chunk)


def _answer(server: socket.socket, client: socket.socket, proxy: Proxy) -> None:
    passed = 0
    with suppress(OSError), client:
        while chunk := server.recv(CHUNK):
            if proxy.faults and passed + len(chunk) > proxy.faults[0][1]:
                kind, limit = proxy.faults.pop(0)
                client.sendall(chunk[: max(0, limit - passed)])
                if kind == "hang":
                    proxy.stuck.set()
                    proxy.ended.wait()
                client.shutdown(socket.SHUT_RDWR)
                return
            client.sendall(chunk)
            passed += len(chunk)
