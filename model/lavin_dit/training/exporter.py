"""Serves a process's metrics to Prometheus, on a port of its own, where that is asked for."""

import logging
import os
from threading import Thread
from types import TracebackType
from typing import Self
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server

from lavin_dit.errors import InputError

logger = logging.getLogger(__name__)

ADDRESS_VARIABLE = "LAVIN_METRICS_ADDRESS"
PORT_VARIABLE = "LAVIN_METRICS_PORT"
"""Either asks for a server: the port is the first process's of a node, and each other process takes the next one."""
DEFAULT_ADDRESS = "127.0.0.1"
DEFAULT_PORT = 9400
HIGHEST_PORT = 65000


class Exporter:
    """A context manager that serves metrics while it is open, from a thread of its own."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._serving: tuple[WSGIServer, Thread] | None = None

    def __enter__(self) -> Self:
        if address := asked_address():
            self._serve(*address)
        return self

    def _serve(self, host: str, port: int) -> None:
        try:
            self._serving = start_http_server(port, host, self._registry)
        except (OSError, UnicodeError) as error:
            # Training is worth more than being watched. What is no name of a host has no encoding, which is told as a UnicodeError.
            reason = getattr(error, "strerror", None) or error
            logger.warning("no metrics for Prometheus: %s:%d cannot be listened on (%s)", host, port, reason)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._serving:
            server, thread = self._serving
            server.shutdown()
            server.server_close()
            thread.join()


def asked_address() -> tuple[str, int] | None:
    """Host and port of this process; None where the environment asks for none.

    Raises: InputError where the port is not one.
    """
    host, port = os.environ.get(ADDRESS_VARIABLE, ""), os.environ.get(PORT_VARIABLE, "")
    if not host and not port:
        return None
    if port and not (port.isdecimal() and 0 < int(port) <= HIGHEST_PORT):
        raise InputError(f"{PORT_VARIABLE} is {port}: must be a port from 1 to {HIGHEST_PORT}, which other processes count on from")
    return host or DEFAULT_ADDRESS, int(port or DEFAULT_PORT) + int(os.environ.get("LOCAL_RANK", "0"))
