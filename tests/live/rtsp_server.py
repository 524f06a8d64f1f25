"""A camera for the tests: GStreamer's RTSP server with pictures that carry their number and time.

Run by the system's Python (it has the bindings, `gi`), as a process of its own, so that it can be stopped and killed. Speaks
JSON lines: one on standard output when it listens, then one answer to each command on standard input.

    {"mount": "/gate", "codec": "h264", "width": 160, "height": 120, "fps": 10, "gop": 10, "bframes": 0, "noise": 4}
    {"mount": "/slow", "fps": 0.5, "announced": 25}       a picture in two seconds from who says that it sends 25 in one
    {"freeze": "/gate", "on": true}          the same picture again and again, while time runs
    {"drop_clients": true}                   end every session
    {"user": "admin", "password": "..."}     from now on ask for these (before the first mount)

Picture n of a mount is due n / fps after the server's start (`began_s`, Unix seconds), in every session, so a reader can
tell which pictures it has missed; it shows when it was really made. The code is the one of `streampose.sources.barcode`,
drawn without NumPy.
"""

from __future__ import annotations

import json
import random
import sys
import time

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

CELL_PX, ROWS, COLUMNS = 8, 4, 16
BLACK, WHITE = 16, 235
ENCODERS = {
    "h264": "x264enc tune={tune} speed-preset=ultrafast key-int-max={gop} bframes={bframes} bitrate=400 threads=1"
    " ! video/x-h264,profile={profile} ! rtph264pay name=pay0 pt=96 config-interval=-1",
    "h265": "x265enc tune=zerolatency speed-preset=ultrafast key-int-max={gop} bitrate=400"
    " option-string=log-level=none:pools=none:frame-threads=1 ! rtph265pay name=pay0 pt=96 config-interval=-1",
    "mjpeg": "jpegenc quality=80 ! rtpjpegpay name=pay0 pt=26",
}
BEGAN_S = time.time()


def crc8(data: bytes) -> int:
    crc = 0xFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = ((crc << 1) ^ 0x07 if crc & 0x80 else crc << 1) & 0xFF
    return crc


def code_lines(number: int, time_s: float) -> list[bytes]:
    """The rows of cells of the code, a margin around them, as lines of pixels."""
    payload = number.to_bytes(3, "big") + round(time_s * 1000).to_bytes(4, "big")
    bits = f"{int.from_bytes(payload + bytes([crc8(payload)]), 'big'):064b}"
    margin = bytes([BLACK]) * CELL_PX
    blank = bytes([BLACK]) * ((COLUMNS + 2) * CELL_PX)
    rows = [bits[row * COLUMNS : (row + 1) * COLUMNS] for row in range(ROWS)]
    drawn = [margin + b"".join(bytes([WHITE if b == "1" else BLACK]) * CELL_PX for b in r) + margin for r in rows]
    return [blank, *drawn, blank]


class Painter:
    """Draws the pictures of one mount: the code over a texture that wanders, with some noise as a sensor has."""

    def __init__(self, width: int, height: int, noise: int) -> None:
        self.width, self.height = width, height
        draw = random.Random(1)
        level, line = 120.0, []
        for _ in range(width * 2):
            level = min(max(level + draw.uniform(-25, 25), 40), 200)
            line.append(int(level))
        self.texture = bytes(line)
        self.chroma = bytes([110]) * (width * height // 4) + bytes([140]) * (width * height // 4)
        self.noises = []
        for _ in range(16):  # some lines of noise, taken in turn: cheap, and enough not to look frozen
            self.noises.append([draw.randint(-noise, noise) for _ in range(width)])

    def draw(self, number: int, time_s: float) -> bytes:
        code = code_lines(number, time_s)
        lines = []
        for y in range(self.height):
            at = (number + y * 3) % self.width
            line = self.texture[at : at + self.width]
            if y % 4 == 0:
                noise = self.noises[(number + y) % len(self.noises)]
                line = bytes(a + b for a, b in zip(line, noise, strict=False))
            if y // CELL_PX < len(code):
                cells = code[y // CELL_PX]
                line = cells + line[len(cells) :]
            lines.append(line)
        return b"".join(lines) + self.chroma


class Mount(GstRtspServer.RTSPMediaFactory):
    """One address of the server."""

    def __init__(self, wish: dict) -> None:
        super().__init__()
        self.fps = wish.get("fps", 10)
        self.frozen_picture = None
        self.frozen = False
        self.painter = Painter(wish.get("width", 160), wish.get("height", 120), wish.get("noise", 4))
        bframes = wish.get("bframes", 0)
        encoder = ENCODERS[wish.get("codec", "h264")].format(
            gop=wish.get("gop", 10),
            bframes=bframes,
            tune=0 if bframes else "zerolatency",
            profile="main" if bframes else "constrained-baseline",
        )
        self.set_launch(
            "( appsrc name=src is-live=true do-timestamp=false format=time "
            f"caps=video/x-raw,format=I420,width={self.painter.width},height={self.painter.height},"
            f"framerate={wish.get('announced', self.fps)}/1 ! {encoder} )"
        )
        self.set_shared(True)
        self.set_latency(50)
        self.connect("media-configure", self.configure)

    def configure(self, _factory: object, media: GstRtspServer.RTSPMedia) -> None:
        source = media.get_element().get_child_by_name("src")
        state = {"next": int((time.time() - BEGAN_S) * self.fps) + 1, "alive": True}
        media.connect("unprepared", lambda _media: state.update(alive=False))
        self.push(source, state)

    def push(self, source: Gst.Element, state: dict) -> bool:
        if not state["alive"]:
            return False
        now_s = time.time() - BEGAN_S
        number = max(state["next"], int(now_s * self.fps))
        due_s = number / self.fps
        clock, base_ns = source.get_clock(), source.get_base_time()
        # Without both it does not play yet: a stamp would be hours ahead, and the sinks would wait for it to be due.
        if now_s >= due_s and clock is not None and base_ns > 0:
            taken_ns = clock.get_time() - base_ns
            picture = self.painter.draw(number, now_s)
            if self.frozen:
                self.frozen_picture = picture = self.frozen_picture or picture
            else:
                self.frozen_picture = None
            buffer = Gst.Buffer.new_wrapped(picture)
            buffer.pts = max(taken_ns, 0)
            source.emit("push-buffer", buffer)
            state["next"] = number + 1
            due_s = state["next"] / self.fps
        wait_ms = max(1, int((due_s - (time.time() - BEGAN_S)) * 1000))
        GLib.timeout_add(wait_ms, self.push, source, state)
        return False


class Server:
    """The server and its commands."""

    def __init__(self) -> None:
        self.server = GstRtspServer.RTSPServer()
        self.server.set_address("127.0.0.1")
        self.server.set_service("0")
        self.server.attach(None)
        self.mounts: dict[str, Mount] = {}
        self.protected = False

    def obey(self, wish: dict) -> dict:
        if "user" in wish:
            self.protect(wish["user"], wish["password"])
        elif "mount" in wish:
            mount = Mount(wish)
            if self.protected:
                permissions = GstRtspServer.RTSPPermissions.new()
                permissions.add_role("viewer")
                permissions.add_permission_for_role("viewer", "media.factory.access", True)
                permissions.add_permission_for_role("viewer", "media.factory.construct", True)
                mount.set_permissions(permissions)
            self.server.get_mount_points().remove_factory(wish["mount"])
            self.server.get_mount_points().add_factory(wish["mount"], mount)
            self.mounts[wish["mount"]] = mount
        elif "freeze" in wish:
            self.mounts[wish["freeze"]].frozen = wish["on"]
        elif "drop_clients" in wish:
            self.server.client_filter(lambda _server, _client: GstRtspServer.RTSPFilterResult.REMOVE)
        else:
            return {"error": f"not known: {wish}"}
        return {"done": True}

    def protect(self, user: str, password: str) -> None:
        auth = GstRtspServer.RTSPAuth.new()
        token = GstRtspServer.RTSPToken.new()
        token.set_string("media.factory.role", "viewer")
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
        self.server.set_auth(auth)
        self.protected = True


def main() -> None:
    Gst.init(None)
    server = Server()
    loop = GLib.MainLoop()

    def command(channel: GLib.IOChannel, _condition: object) -> bool:
        line = channel.readline()
        if not line:
            loop.quit()
            return False
        sys.stdout.write(json.dumps(server.obey(json.loads(line))) + "\n")
        sys.stdout.flush()
        return True

    GLib.io_add_watch(
        GLib.IOChannel.unix_new(0), GLib.PRIORITY_DEFAULT, GLib.IOCondition.IN | GLib.IOCondition.HUP, command
    )
    sys.stdout.write(json.dumps({"port": server.server.get_bound_port(), "began_s": BEGAN_S}) + "\n")
    sys.stdout.flush()
    loop.run()


main()
