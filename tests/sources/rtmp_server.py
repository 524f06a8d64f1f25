"""An RTMP server of one stream, for tests: it plays the tags of an FLV file to whoever asks (RTMP specification 1.0)."""

from __future__ import annotations

import socketserver
import struct
from collections.abc import Iterator
from pathlib import Path

CHUNK = 4096
BANDWIDTH, CONTROL, COMMAND = 5, 4, 20  # types of messages
HANDSHAKE = 1536


def text(value: str) -> bytes:
    """A string in AMF0."""
    return b"\x02" + struct.pack(">H", len(value)) + value.encode()


def number(value: float) -> bytes:
    """A number in AMF0."""
    return b"\x00" + struct.pack(">d", value)


def mapping(values: dict[str, str]) -> bytes:
    """An object of strings in AMF0."""
    keys = b"".join(struct.pack(">H", len(key)) + key.encode() + text(value) for key, value in values.items())
    return b"\x03" + keys + b"\x00\x00\x09"


def tags(flv: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Type, time in ms and content of each tag of an FLV file; RTMP's messages have the same three."""
    place = 13
    while place + 11 <= len(flv):
        size, low = int.from_bytes(flv[place + 1 : place + 4]), int.from_bytes(flv[place + 4 : place + 7])
        yield flv[place], (flv[place + 7] << 24) | low, flv[place + 11 : place + 11 + size]
        place += 11 + size + 4


class Player(socketserver.StreamRequestHandler):
    """One client: handshake, `connect`, `createStream`, `play`; then the whole file, and the end."""

    server: RtmpServer

    def handle(self) -> None:
        """Serve until the client has all, or hangs up."""
        asked = self.rfile.read(1 + HANDSHAKE)
        self.wfile.write(b"\x03" + bytes(HANDSHAKE) + asked[1:])
        self.rfile.read(HANDSHAKE)
        self.size, self.heads = 128, dict[int, tuple[int, int]]()
        while True:
            kind, body = self.message()
            if kind == 1:
                self.size = int.from_bytes(body)
            if kind != COMMAND:
                continue
            name = body[3 : 3 + int.from_bytes(body[1:3])].decode()
            ticket = body[3 + len(name) : 12 + len(name)]
            if name == "connect":
                self.say(1, struct.pack(">I", CHUNK))
                self.say(
                    COMMAND, text("_result") + ticket + mapping({}) + mapping({"code": "NetConnection.Connect.Success"})
                )
            elif name == "createStream":
                self.say(COMMAND, text("_result") + ticket + b"\x05" + number(1))
            elif name == "play":
                started = mapping({"level": "status", "code": "NetStream.Play.Start"})
                self.say(COMMAND, text("onStatus") + number(0) + b"\x05" + started, stream=1)
                for tag, time_ms, content in tags(self.server.flv.read_bytes()):
                    self.say(tag, content, time_ms, stream=1)
                return

    def message(self) -> tuple[int, bytes]:
        """Type and content of the client's next message; its chunks do not interleave."""
        body, left = b"", -1
        while left:
            first = self.rfile.read(1)
            if not first:
                raise ConnectionResetError
            form, channel = first[0] >> 6, first[0] & 63
            head = self.rfile.read((11, 7, 3, 0)[form])
            if form < 2:
                self.heads[channel] = (int.from_bytes(head[3:6]), head[6])
            size, kind = self.heads[channel]
            left = size if left < 0 else left
            body += self.rfile.read(min(left, self.size))
            left = size - len(body)
        return kind, body

    def say(self, kind: int, body: bytes, time_ms: int = 0, stream: int = 0) -> None:
        """Send a message in chunks."""
        head = time_ms.to_bytes(3) + len(body).to_bytes(3) + bytes([kind]) + struct.pack("<I", stream)
        pieces = [body[start : start + CHUNK] for start in range(0, len(body), CHUNK)] or [b""]
        self.wfile.write(b"\x03" + head + b"\xc3".join(pieces))


class RtmpServer(socketserver.ThreadingTCPServer):
    """Plays `flv` under any name on a port of its own."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, flv: Path) -> None:
        super().__init__(("127.0.0.1", 0), Player)
        self.flv = flv

    def handle_error(self, *_: object) -> None:
        """A client that hangs up is none of ours."""
