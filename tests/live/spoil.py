"""What can be wrong with what a camera says: mutations of RTSP answers, session descriptions and packets. Pure, seeded."""

from __future__ import annotations

import random
import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import replace

from tests.live.rtsp_script import Script, interleaved, sender_report

NUMBERS = (b"-1", b"0", b"1", b"255", b"65535", b"65536", b"2147483647", b"2147483648", b"4294967296", b"9" * 19,
           b"9" * 40, b"-9223372036854775808", b"1e309", b"0x7f", b"nan", b"")  # fmt: skip
STATUSES = (b"100 Continue", b"200 OK", b"301 Moved", b"302 Found", b"401 Unauthorized", b"403 Forbidden",
            b"404 Not Found", b"454 Session Not Found", b"461 Unsupported transport", b"500 Internal", b"503 Busy",
            b"999 ?", b"-1 ",
            b"2")  # fmt: skip
TRANSPORTS = (b"RTP/AVP/TCP;unicast;interleaved=255-0", b"RTP/AVP/TCP;interleaved=7", b"RTP/AVP;unicast;server_port=1-2",
              b"RTP/AVP/TCP;interleaved=-1--1", b"RAW/RAW/UDP;unicast", b"RTP/AVP/TCP;unicast;interleaved=0-1;ssrc=zzz",
              b"x-pn-tng/tcp;;;;;;", b"")  # fmt: skip
LINES = (b"m=video 0 RTP/AVP 96", b"m=audio 0 RTP/AVP 0", b"m=video 0 RTP/AVP 26", b"m=application 0 RTP/AVP 107",
         b"a=rtpmap:96 H264/0", b"a=rtpmap:96 H265/90000", b"a=rtpmap:96 VP8/90000", b"a=rtpmap:96 MP4V-ES/90000",
         b"a=rtpmap:96 JPEG2000/1", b"a=rtpmap:96 theora/90000", b"a=rtpmap:96 AV1/90000", b"a=rtpmap:96 X-QT/600",
         b"a=fmtp:96 packetization-mode=2;interleaving-depth=99", b"a=fmtp:96 configuration=" + b"f" * 9000,
         b"a=fmtp:96 sprop-parameter-sets=" + b"A" * 5000, b"a=fmtp:96 sprop-parameter-sets=,,,,", b"a=control:*",
         b"a=control:" + b"x" * 5000, b"a=x-dimensions:-1,65536", b"a=x-dimensions:100000,100000", b"a=framerate:0",
         b"a=framerate:1e30", b"a=range:npt=99999999999-", b"b=AS:999999999999", b"c=IN IP6 ::", b"a=key-mgmt:mikey AAAA",
         b"a=source-filter: incl IN IP4 * * *", b"t=" + b"9" * 300, b"=", b"a=", b"a=fmtp:96")  # fmt: skip


def spoil(script: Script, draw: random.Random) -> tuple[str, Script]:
    """One script with something wrong in it, by the name of what."""
    kind = draw.choice(sorted(_KINDS))
    return kind, _KINDS[kind](script, draw)


def _bytes(data: bytes, draw: random.Random) -> bytes:
    """A few bytes overwritten, cut out, put in or doubled."""
    spoilt = bytearray(data)
    for _ in range(draw.randint(1, 12)):
        if not spoilt:
            break
        at = draw.randrange(len(spoilt))
        what = draw.randrange(5)
        if what == 0:
            spoilt[at] = draw.randrange(256)
        elif what == 1:
            spoilt[at] ^= 1 << draw.randrange(8)
        elif what == 2:
            del spoilt[at : at + draw.randint(1, 20)]
        elif what == 3:
            spoilt[at:at] = draw.randbytes(draw.randint(1, 20))
        else:
            spoilt[at:at] = spoilt[at : at + draw.randint(1, 200)]
    return bytes(spoilt)


def _numbers(data: bytes, draw: random.Random) -> bytes:
    """One or two numbers replaced by ones that nobody expects."""
    for _ in range(draw.randint(1, 2)):
        found = list(re.finditer(rb"\d+", data))
        if found:
            at = draw.choice(found)
            data = data[: at.start()] + draw.choice(NUMBERS) + data[at.end() :]
    return data


def _lines(data: bytes, draw: random.Random) -> bytes:
    """Lines left out, doubled, swapped, endless, or without their end."""
    lines = data.split(b"\r\n")
    at = draw.randrange(len(lines))
    what = draw.randrange(6)
    if what == 0:
        del lines[at]
    elif what == 1:
        lines[at:at] = [lines[at]] * draw.choice((1, 3, 300))
    elif what == 2:
        draw.shuffle(lines)
    elif what == 3:
        lines[at] += b"A" * draw.choice((100, 4000, 40_000))
    elif what == 4:
        return b"\n".join(lines)
    else:
        lines[at] = lines[at].replace(b":", b"", 1)
    return b"\r\n".join(lines)


def _relength(message: bytes, draw: random.Random) -> bytes:
    """An answer whose length is that of its body again: so that what is wrong inside is looked at."""
    head, mark, body = message.partition(b"\r\n\r\n")
    return re.sub(rb"Content-Length: *\d*", b"Content-Length: %d" % len(body), head) + mark + body


def _one_answer(how: Callable[[bytes, random.Random], bytes]) -> Callable[[Script, random.Random], Script]:
    def spoilt(script: Script, draw: random.Random) -> Script:
        answers = list(script.answers)
        at = draw.randrange(len(answers))
        answers[at] = how(answers[at], draw)
        return replace(script, answers=tuple(answers))

    return spoilt


def _description(how: Callable[[bytes, random.Random], bytes]) -> Callable[[Script, random.Random], Script]:
    def spoilt(script: Script, draw: random.Random) -> Script:
        head, mark, body = script.answers[1].partition(b"\r\n\r\n")
        answers = list(script.answers)
        answers[1] = _relength(head + mark + how(body, draw), draw)
        return replace(script, answers=tuple(answers))

    return spoilt


def _other_line(body: bytes, draw: random.Random) -> bytes:
    lines = body.split(b"\r\n")
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(lines))
        lines[at : at + draw.randrange(2)] = [draw.choice(LINES)] * draw.choice((1, 1, 1, 40))
    return b"\r\n".join(lines)


def _status(message: bytes, draw: random.Random) -> bytes:
    """Another status, for some with where to go instead: always loopback, since a client may follow."""
    _, _, rest = message.partition(b"\r\n")
    more = draw.choice((b"", b"Location: rtsp://127.0.0.1:1/\r\n", b"WWW-Authenticate: Digest realm=\r\n", b"Location:\r\n",
                        b'WWW-Authenticate: Digest realm="' + b"r" * 3000 + b'", nonce="n"\r\n'))  # fmt: skip
    return b"RTSP/1.0 " + draw.choice(STATUSES) + b"\r\n" + more + rest


def _transport(script: Script, draw: random.Random) -> Script:
    answers = list(script.answers)
    answers[2] = re.sub(rb"Transport: [^\r]*", lambda _: b"Transport: " + draw.choice(TRANSPORTS), answers[2])
    return replace(script, answers=tuple(answers))


def _noise(script: Script, draw: random.Random) -> Script:
    at = draw.randrange(len(script.answers))
    noise = draw.randbytes(draw.choice((1, 100, 5000)))
    return replace(script, answers=(*script.answers[:at], noise, *script.answers[at + 1 :]))


def _cut(script: Script, draw: random.Random) -> Script:
    """The camera hangs up in the middle of a word."""
    at = draw.randrange(len(script.answers))
    half = script.answers[at][: draw.randrange(len(script.answers[at]))]
    return replace(script, answers=(*script.answers[:at], half), packets=())


def _payload(how: Callable[[bytes, random.Random], bytes], share: float) -> Callable[[Script, random.Random], Script]:
    def spoilt(script: Script, draw: random.Random) -> Script:
        packets = []
        for packet in script.packets:
            if draw.random() < share:
                packet = interleaved(how(packet[4:], draw)[:65_000], packet[1])
            packets.append(packet)
        return replace(script, packets=tuple(packets))

    return spoilt


def _header(payload: bytes, draw: random.Random) -> bytes:
    """An RTP header (RFC 3550, 5.1) that lies: padding, extension, sources, type, number, time."""
    if len(payload) < 12:
        return payload
    first, second, number, ticks = struct.unpack_from(">BBHI", payload)
    what = draw.randrange(6)
    if what == 0:
        first = draw.randrange(256)
    elif what == 1:
        second = draw.randrange(256)
    elif what == 2:
        number = draw.randrange(1 << 16)
    elif what == 3:
        ticks = draw.randrange(1 << 32)
    elif what == 4:
        first |= 0x20
        payload = payload[:-1] + bytes([draw.randrange(256)])
    else:
        first |= 0x10
        payload = payload[:12] + struct.pack(">HH", draw.randrange(1 << 16), draw.randrange(1 << 16)) + payload[12:]
    return struct.pack(">BBHI", first, second, number, ticks) + payload[8:]


def _units(payload: bytes, draw: random.Random) -> bytes:
    """The first bytes behind the header: NAL unit type, aggregation sizes, fragment marks (RFC 6184, RFC 7798)."""
    if len(payload) < 14:
        return payload
    body = bytearray(payload)
    for at in range(12, min(len(body), 12 + draw.randint(1, 6))):
        body[at] = draw.choice((0x18, 0x1C, 0x7C, 0x60, 0x62, 0x65, 0x67, 0xFF, 0, draw.randrange(256)))
    return bytes(body[: draw.choice((13, 14, 15, 16, len(body), len(body)))])


def _framing(script: Script, draw: random.Random) -> Script:
    """Lengths and channels of interleaved frames that lie, bytes between them, frames in the wrong order or many times."""
    packets = list(script.packets)
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(packets))
        what = draw.randrange(5)
        if what == 0:
            packets[at] = packets[at][:2] + struct.pack(">H", draw.randrange(1 << 16)) + packets[at][4:]
        elif what == 1:
            packets[at] = packets[at][:1] + bytes([draw.randrange(256)]) + packets[at][2:]
        elif what == 2:
            packets[at] = draw.randbytes(draw.randint(1, 400)) + packets[at]
        elif what == 3:
            draw.shuffle(packets)
        else:
            packets[at] = packets[at] * draw.choice((2, 50))
    return replace(script, packets=tuple(packets))


def _reports(script: Script, draw: random.Random) -> Script:
    """RTCP among the pictures: reports of absurd times, spoilt ones, and BYE."""
    packets: list[bytes] = []
    for packet in script.packets:
        packets.append(packet)
        if draw.random() < 0.3:
            report = sender_report(draw.randrange(1 << 32), draw.random() * 2**32, draw.randrange(1 << 32))
            goodbye = struct.pack(">BBHI", 0x81, 203, draw.choice((1, 0, 65535)), 1)
            packets.append(interleaved(draw.choice((report, _bytes(report, draw), goodbye)), draw.choice((0, 1, 1))))
    return replace(script, packets=tuple(packets))


def _amid(script: Script, draw: random.Random) -> Script:
    """Text among the packets: answers nobody asked for, and requests from the camera."""
    words: Sequence[bytes] = (
        b"RTSP/1.0 200 OK\r\nCSeq: 99\r\n\r\n", b"RTSP/1.0 200 OK\r\nContent-Length: 70000\r\n\r\n", b"\r\n\r\n\r\n",
        b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n", b"ANNOUNCE rtsp://127.0.0.1/ RTSP/1.0\r\n\r\n", b"TEARDOWN \r\n\r\n",
        b"$$$$",
    )  # fmt: skip
    packets: list[bytes] = []
    for packet in script.packets:
        packets += [draw.choice(words), packet] if draw.random() < 0.3 else [packet]
    return replace(script, packets=tuple(packets))


_KINDS: dict[str, Callable[[Script, random.Random], Script]] = {
    "answer bytes": _one_answer(_bytes),
    "answer numbers": _one_answer(_numbers),
    "answer lines": _one_answer(_lines),
    "answer status": _one_answer(_status),
    "answer noise": _noise,
    "answer cut": _cut,
    "transport": _transport,
    "sdp bytes": _description(_bytes),
    "sdp numbers": _description(_numbers),
    "sdp lines": _description(_lines),
    "sdp other lines": _description(_other_line),
    "packet bytes": _payload(_bytes, 0.4),
    "packet header": _payload(_header, 0.5),
    "packet units": _payload(_units, 0.5),
    "framing": _framing,
    "reports": _reports,
    "amid": _amid,
}
