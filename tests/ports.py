"""Ports for servers that are started by tests, and again on the same port."""

import os
import socket


def free_port():
    """Below those that systems give to connections (32768 on Linux, RFC 6335 has 49152), which
    would take it while its server is down. A cluster's second port, 10,000 above, is free, too.
    """
    while True:
        port = 12_000 + int.from_bytes(os.urandom(4)) % 10_000
        try:
            with (
                socket.create_server(("127.0.0.1", port)),
                socket.create_server(("127.0.0.1", port + 10_000)),
            ):
                return port
        except OSError:
            continue
