"""The network between camera and client, as bad as a test wishes: an RTSP proxy that injects faults, TCP and UDP.

It reads the RTSP dialogue as it passes, so that faults strike where they should: whole connections (refused, slammed, reset,
silent, dead, dripping, answering 401 or garbage), or single RTP packets (lost, damaged, doubled, out of order, with other
times).
All proxies of a `Network` run in one thread of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, cast

RTP_VERSION = 2 << 6
SENDER_REPORT = 200
DRIP_S = 0.02
TICKS = 1 << 32


@dataclass
class Faults:
    """What is wrong now. Set from any thread; looked at for every connection and packet.

    `refuse`: nobody listens. `slam`: accept and close. `silent`: accept and say nothing, whatever comes. `dead`: the same
    for ever, for every connection that there was meanwhile. `deny`: answer 401.
    `garbage`: answer noise. `drip`: a byte at a time. `loss`, `flip`, `double`, `swap`: probability per RTP packet.
    `start_ticks`: RTP time of the first packet of a new connection. `jump_ticks`: from the next packet on, RTP time is so
    much later (once; then 0 again). `odd_frame_ticks`: the same for the packets of the next frame only.
    """

    refuse: bool = False
    slam: bool = False
    silent: bool = False
    dead: bool = False
    deny: bool = False
    garbage: bool = False
    drip: bool = False
    loss: float = 0.0
    flip: float = 0.0
    double: float = 0.0
    swap: float = 0.0
    start_ticks: int | None = None
    jump_ticks: int = 0
    odd_frame_ticks: int = 0


@dataclass
class Mangler:
    """Does to the RTP packets of one connection what the faults say; counts what it did in `struck`."""

    faults: Faults
    draw: random.Random
    shift: int | None = None
    held: bytes | None = None
    odd_time: int | None = None
    struck: Counter[str] = field(default_factory=Counter)

    def packets(self, packet: bytes) -> list[bytes]:
        """What arrives for one packet sent, in order."""
        if len(packet) < 12 or packet[0] & 0xC0 != RTP_VERSION:
            return [packet]
        if (
            192 <= packet[1] <= 223
        ):  # RTCP keeps its own times consistent with the shifted ones (RFC 5761 tells them apart)
            return [self._report(packet)]
        packet = self._timed(packet)
        faults, held, self.held = self.faults, self.held, None
        behind = [] if held is None else [held]
        if self._strikes("loss", faults.loss):
            return behind
        if self._strikes("flip", faults.flip):
            damaged = bytearray(packet)
            for _ in range(3):
                at = self.draw.randrange(12, len(damaged)) if len(damaged) > 12 else 0
                damaged[at] ^= 1 << self.draw.randrange(8)
            packet = bytes(damaged)
        if self._strikes("double", faults.double):
            return [packet, *behind, packet]
        if held is None and self._strikes("swap", faults.swap):
            self.held = packet
            return []
        return [packet, *behind]

    def _strikes(self, what: str, probability: float) -> bool:
        struck = probability > 0 and self.draw.random() < probability
        self.struck[what] += struck
        return struck

    def _timed(self, packet: bytes) -> bytes:
        (ticks,) = struct.unpack_from(">I", packet, 4)
        if self.shift is None:
            self.shift = 0 if self.faults.start_ticks is None else self.faults.start_ticks - ticks
        if self.faults.jump_ticks:
            self.shift += self.faults.jump_ticks
            self.faults.jump_ticks = 0
        odd = 0
        if self.faults.odd_frame_ticks:
            self.odd_time = ticks if self.odd_time is None else self.odd_time
            if ticks == self.odd_time:
                odd = self.faults.odd_frame_ticks
            else:
                self.faults.odd_frame_ticks, self.odd_time = 0, None
        return packet[:4] + struct.pack(">I", (ticks + self.shift + odd) % TICKS) + packet[8:]

    def _report(self, packet: bytes) -> bytes:
        if packet[1] != SENDER_REPORT or len(packet) < 20 or not self.shift:
            return packet
        (ticks,) = struct.unpack_from(">I", packet, 16)
        return packet[:16] + struct.pack(">I", (ticks + self.shift) % TICKS) + packet[20:]


class Relay(asyncio.DatagramProtocol):
    """One UDP port: what comes in goes through `mangle` and out by `send`."""

    def __init__(self, forward: Callable[[bytes], None]) -> None:
        self.forward = forward
        self.transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.forward(data)

    def error_received(self, exc: Exception) -> None:
        """A port that nobody listens on: the client has gone."""

    @property
    def port(self) -> int:
        assert self.transport is not None
        port: int = self.transport.get_extra_info("sockname")[1]
        return port

    def send(self, data: bytes, port: int) -> None:
        if self.transport is not None and not self.transport.is_closing() and port:
            self.transport.sendto(data, ("127.0.0.1", port))


class Connection:
    """One client's RTSP connection and the UDP ports it asked for."""

    def __init__(self, proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.proxy, self.reader, self.writer = proxy, reader, writer
        self.mangler = Mangler(proxy.faults, proxy.draw, struck=proxy.struck)
        self.relays: list[Relay] = []
        self.client_ports: list[int] = []
        self.server_ports: list[int] = [0, 0]
        self.up: asyncio.StreamWriter | None = None
        self.dead = proxy.faults.dead

    async def run(self) -> None:
        faults = self.proxy.faults
        if faults.slam:
            return
        if self.dead:
            while await self.reader.read(4096):
                pass
            return
        if faults.silent or faults.deny or faults.garbage:
            await self._misbehave()
            return
        down, self.up = await asyncio.open_connection("127.0.0.1", self.proxy.target())
        both = [asyncio.ensure_future(self._requests(self.up)), asyncio.ensure_future(self._answers(down))]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)

    def close(self, *, reset: bool = False) -> None:
        for relay in self.relays:
            if relay.transport is not None:
                relay.transport.close()
        for writer in (self.writer, self.up):
            if writer is None:
                continue
            if reset:
                sock = writer.get_extra_info("socket")
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
            else:
                writer.close()

    async def _misbehave(self) -> None:
        faults = self.proxy.faults
        while await self.reader.read(4096):
            if faults.deny:
                self.writer.write(b'RTSP/1.0 401 Unauthorized\r\nCSeq: 1\r\nWWW-Authenticate: Basic realm="x"\r\n\r\n')
            elif faults.garbage:
                self.writer.write(self.proxy.draw.randbytes(2000))
            elif not faults.silent:
                return

    async def _requests(self, up: asyncio.StreamWriter) -> None:
        while True:
            message = await self._message(self.reader)
            found = re.search(rb"client_port=(\d+)-(\d+)", message)
            if found:
                self.client_ports = [int(found[1]), int(found[2])]
                await self._make_relays()
                message = message.replace(found[0], b"client_port=%d-%d" % (self.relays[0].port, self.relays[1].port))
            up.write(message)
            await up.drain()

    async def _answers(self, down: asyncio.StreamReader) -> None:
        while True:
            message = await self._message(down)
            if self.proxy.faults.silent or self.dead:
                continue
            if message[:1] == b"$":
                packets = self.mangler.packets(message[4:])
                message = b"".join(message[:2] + struct.pack(">H", len(packet)) + packet for packet in packets)
            else:
                message = self._with_own_ports(message)
            await self._write(message)

    async def _write(self, message: bytes) -> None:
        if not self.proxy.faults.drip:
            self.writer.write(message)
            await self.writer.drain()
            return
        for at in range(len(message)):
            if not self.proxy.faults.drip:
                self.writer.write(message[at:])
                return
            self.writer.write(message[at : at + 1])
            await self.writer.drain()
            await asyncio.sleep(DRIP_S)

    async def _message(self, reader: asyncio.StreamReader) -> bytes:
        """One interleaved packet, or one RTSP request or answer with its body."""
        first = await reader.readexactly(1)
        if first == b"$":
            head = await reader.readexactly(3)
            return first + head + await reader.readexactly(struct.unpack(">H", head[1:])[0])
        head = first + await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length:\s*(\d+)", head)
        return head + (await reader.readexactly(int(length[1])) if length else b"")

    async def _make_relays(self) -> None:
        """Two ports towards the server (RTP, RTCP), two towards the client."""

        def to_client(at: int) -> Callable[[bytes], None]:
            def forward(data: bytes) -> None:
                if not (self.proxy.faults.silent or self.dead):
                    for packet in self.mangler.packets(data):
                        self.relays[2 + at].send(packet, self.client_ports[at])

            return forward

        def to_server(at: int) -> Callable[[bytes], None]:
            return lambda data: self.relays[at].send(data, self.server_ports[at])

        loop = asyncio.get_running_loop()
        for forward in (to_client(0), to_client(1), to_server(0), to_server(1)):
            _, relay = await loop.create_datagram_endpoint(lambda f=forward: Relay(f), local_addr=("127.0.0.1", 0))  # type: ignore[misc]
            self.relays.append(relay)

    def _with_own_ports(self, message: bytes) -> bytes:
        found = re.search(rb"client_port=\d+-\d+;server_port=(\d+)-(\d+)", message)
        if not found:
            return message
        self.server_ports = [int(found[1]), int(found[2])]
        ours = b"client_port=%d-%d;server_port=%d-%d"
        return message.replace(found[0], ours % (*self.client_ports, self.relays[2].port, self.relays[3].port))


class Proxy:
    """One camera's way through the network; `port` stays the same for ever. `target()` is where the camera listens now."""

    def __init__(self, network: Network, target: Callable[[], int], seed: int) -> None:
        self.network, self.target = network, target
        self.faults = Faults()
        self.draw = random.Random(seed)
        self.connections: set[Connection] = set()
        self.accepted = 0
        self.struck: Counter[str] = Counter()
        self.port = 0
        self._server: asyncio.Server | None = None
        network.do(self._listen())

    def refuse(self, on: bool) -> None:
        """Stop listening (and cut who is connected), or listen again."""
        self.network.do(self._stop() if on else self._listen())
        self.faults.refuse = on

    def dead(self, on: bool) -> None:
        """Every connection there is now, and each that comes until it is off again, is silent for ever."""
        self.faults.dead = on
        for connection in list(self.connections):
            connection.dead = connection.dead or on

    def cut(self, *, reset: bool = False) -> None:
        """End every connection, politely or by RST."""
        self.network.do(self._cut(reset))

    def url(self, path: str, user: str = "") -> str:
        return f"rtsp://{user + '@' if user else ''}127.0.0.1:{self.port}{path}"

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._cut(True)

    async def _cut(self, reset: bool) -> None:
        for connection in list(self.connections):
            connection.close(reset=reset)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(self, reader, writer)
        self.connections.add(connection)
        self.accepted += 1
        try:
            await connection.run()
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # the camera is away, or one of the two has hung up: so does the other
        finally:
            connection.close()
            self.connections.discard(connection)


class Network:
    """The thread in which all proxies run; a with-block."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="test-network", daemon=True)
        self.proxies: list[Proxy] = []

    def __enter__(self) -> Network:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for proxy in self.proxies:
            self.do(proxy._stop())
        self.do(self._finish())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def proxy(self, target: Callable[[], int], seed: int = 1) -> Proxy:
        made = Proxy(self, target, seed)
        self.proxies.append(made)
        return made

    def do(self, what: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(10)

    async def _finish(self) -> None:
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
