"""A TCP server on loopback for tests of clients: what it says to each connection is the test's own."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def tcp_server(talk: Callable[[socket.socket], None], *, patience_s: float | None = None) -> Iterator[int]:
    """Lets `talk` have every connection in turn, and holds them all open to the end; gives its port.

    `patience_s` bounds each wait of `talk` for its client; an OSError in it ends only that conversation.
    """
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.05)

        def serve() -> None:
            held = []
            while not over.is_set():
                with contextlib.suppress(TimeoutError):
                    connection = listening.accept()[0]
                    held.append(connection)
                    connection.settimeout(patience_s)
                    with contextlib.suppress(OSError):
                        talk(connection)
            for connection in held:
                connection.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            over.set()
            thread.join(10)
