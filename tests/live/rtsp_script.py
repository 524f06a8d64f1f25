"""An RTSP camera from a script: what a real one says, message by message, so that each can be spoilt.

The packets are libav's own RTP payloading of a small video, caught on loopback; the answers are written after RFC 2326 and
RFC 4566. Nothing but Python's sockets is needed.
"""

from __future__ import annotations

import base64
import contextlib
import re
import socket
import struct
import threading
from dataclasses import dataclass, replace
from pathlib import Path

import av

from tests.media import picture

PATIENCE_S = 0.1  # a client that says nothing for so long has lost its way
FRAMES = 12
MOST_BYTES = 65_000  # of a datagram
TCP = b"RTP/AVP/TCP;unicast;interleaved=0-1"


@dataclass(frozen=True)
class Script:
    """What the camera says: an answer to each request in turn ("{cseq}" is filled in), then `packets`, then it hangs up.

    `answers`: OPTIONS, DESCRIBE, SETUP, PLAY. `packets`: interleaved frames ready to send, "$", channel, length, payload.
    """

    answers: tuple[bytes, ...]
    packets: tuple[bytes, ...]


def interleaved(payload: bytes, channel: int = 0) -> bytes:
    return b"$" + struct.pack(">BH", channel, len(payload)) + payload


def sender_report(ssrc: int = 1, ntp_s: float = 3_900_000_000.0, ticks: int = 0) -> bytes:
    """RTCP sender report (RFC 3550, 6.4.1) without report blocks."""
    return struct.pack(">BBHIIIIII", 0x80, 200, 6, ssrc, int(ntp_s), 0, ticks, 10, 1000)


def answer(body: bytes = b"", *headers: str, status: str = "200 OK") -> bytes:
    lines = [f"RTSP/1.0 {status}", "CSeq: {cseq}", *headers]
    if body:
        lines += ["Content-Type: application/sdp", f"Content-Length: {len(body)}"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def payloads(codec: str, folder: Path) -> tuple[list[bytes], bytes]:
    """RTP packets of a small video, and its parameter sets as Annex B."""
    encoder, options = {
        "h264": ("libx264", {"preset": "ultrafast", "tune": "zerolatency"}),
        "hevc": ("libx265", {"preset": "ultrafast", "tune": "zerolatency", "x265-params": "log-level=none:pools=none"}),
        "mjpeg": ("mjpeg", {"q": "8", "huffman": "default"}),
    }[codec]
    caught: list[bytes] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.settimeout(0.2)
        url = f"rtp://127.0.0.1:{listening.getsockname()[1]}?pkt_size=600"
        with av.open(url, "w", format="rtp") as output:
            stream = output.add_stream(encoder, rate=10, options=options)
            stream.width, stream.height = 192, 128
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            stream.gop_size = 6
            stream.codec_context.thread_count = 1
            for number in range(FRAMES):
                frame = av.VideoFrame.from_ndarray(picture(number, number / 10), format="bgr24")
                frame.pts = number
                output.mux(stream.encode(frame))
                with contextlib.suppress(TimeoutError):
                    listening.setblocking(False)
                    with contextlib.suppress(BlockingIOError):
                        while True:
                            caught.append(listening.recv(4096))
            output.mux(stream.encode(None))
            extra = bytes(stream.codec_context.extradata or b"")
            with contextlib.suppress(BlockingIOError):
                while True:
                    caught.append(listening.recv(4096))
    return [packet for packet in caught if not 192 <= packet[1] <= 223], extra


def sdp(codec: str, extra: bytes) -> bytes:
    """The session description (RFC 4566) of a camera with one video."""
    sets = [nal for nal in extra.replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1") if nal]
    coded = [base64.b64encode(nal).decode() for nal in sets]
    if codec == "h264":
        media = [
            "m=video 0 RTP/AVP 96",
            "a=rtpmap:96 H264/90000",
            f"a=fmtp:96 packetization-mode=1; sprop-parameter-sets={','.join(coded[:2])}; profile-level-id=42C01E",
        ]
    elif codec == "hevc":
        names = {32: "sprop-vps", 33: "sprop-sps", 34: "sprop-pps"}
        known = [
            f"{names[nal[0] >> 1 & 63]}={text}"
            for nal, text in zip(sets, coded, strict=True)
            if nal[0] >> 1 & 63 in names
        ]
        media = ["m=video 0 RTP/AVP 96", "a=rtpmap:96 H265/90000", f"a=fmtp:96 {'; '.join(known)}"]
    else:
        media = ["m=video 0 RTP/AVP 26", "a=x-dimensions:192,128"]
    lines = ["v=0", "o=- 1 1 IN IP4 127.0.0.1", "s=camera", "c=IN IP4 0.0.0.0", "t=0 0", "a=range:npt=now-"]
    return "\r\n".join([*lines, *media, "a=framerate:10", "a=control:track1", ""]).encode()


def script(codec: str, folder: Path) -> Script:
    """A camera that does everything right."""
    packets, extra = payloads(codec, folder)
    body = sdp(codec, extra)
    return Script(
        (
            answer(b"", "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN"),
            answer(body, "Content-Base: rtsp://127.0.0.1/x/"),
            answer(b"", "Session: 12345678;timeout=60", f"Transport: {TCP.decode()}"),
            answer(b"", "Session: 12345678", "Range: npt=now-", "RTP-Info: url=track1;seq=1;rtptime=0"),
        ),
        (interleaved(sender_report(), 1), *(interleaved(packet) for packet in packets)),
    )


class Camera:
    """Serves one script after the other on loopback: `script` is what the next connection gets. A with-block.

    A client that asks for UDP (its SETUP names `client_port`) gets the packets without their interleaving as datagrams,
    those of an even channel to its RTP port, the others to its RTCP port.
    """

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=16)
        self.port: int = self._listening.getsockname()[1]
        self.script: Script | None = None
        self.requests: list[bytes] = []
        self._udp = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
        for udp in self._udp:
            udp.bind(("127.0.0.1", 0))
        self._udp_ports = tuple(udp.getsockname()[1] for udp in self._udp)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="test-camera", daemon=True)

    def __enter__(self) -> Camera:
        self._listening.settimeout(0.1)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(5)
        self._listening.close()
        for udp in self._udp:
            udp.close()

    def _serve(self) -> None:
        while not self._over.is_set():
            with contextlib.suppress(TimeoutError):
                connection, _ = self._listening.accept()
                with connection, contextlib.suppress(OSError):
                    connection.settimeout(PATIENCE_S)
                    self._dialogue(connection)

    def _dialogue(self, connection: socket.socket) -> None:
        """One connection after the script; anything unexpected ends it."""
        assert self.script is not None
        waiting = b""
        ports: tuple[int, int] | None = None
        for text in self.script.answers:
            while b"\r\n\r\n" not in waiting:
                got = connection.recv(4096)
                if not got:
                    return
                waiting += got
            request, _, waiting = waiting.partition(b"\r\n\r\n")
            self.requests.append(request)
            del self.requests[:-8]
            asked = re.search(rb"client_port=(\d+)-(\d+)", request)
            if asked:
                ports = int(asked[1]), int(asked[2])
                text = text.replace(TCP, b"RTP/AVP;unicast;%b;server_port=%d-%d" % (asked[0], *self._udp_ports))
            sequence = next((line[5:].strip() for line in request.split(b"\r\n") if line[:5].lower() == b"cseq:"), b"1")
            connection.sendall(text.replace(b"{cseq}", sequence))
        for packet in self.script.packets:
            if ports is None:
                connection.sendall(packet)
            elif len(packet) > 4:
                odd = packet[1] % 2
                self._udp[odd].sendto(packet[4 : 4 + MOST_BYTES], ("127.0.0.1", ports[odd]))
        connection.shutdown(socket.SHUT_WR)


def truncated(given: Script, packets: int) -> Script:
    return replace(given, packets=given.packets[:packets])
