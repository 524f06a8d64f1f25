"""A camera process of the tests (`rtsp_server.py`), started, stopped, killed and brought back on the same port."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

SYSTEM_PYTHON = "/usr/bin/python3"
SERVER = Path(__file__).with_name("rtsp_server.py")
PROBE = (
    "import gi; gi.require_version('Gst','1.0'); gi.require_version('GstRtspServer','1.0');"
    "from gi.repository import Gst, GstRtspServer; Gst.init(None);"
    "missing=[n for n in ('x264enc','x265enc','jpegenc','rtph264pay','rtph265pay','rtpjpegpay','appsrc')"
    " if not Gst.ElementFactory.find(n)]; raise SystemExit(' '.join(missing) or 0)"
)


@functools.cache
def missing() -> str:
    """Why no camera can be had here; empty where one can."""
    if not Path(SYSTEM_PYTHON).exists():
        return f"{SYSTEM_PYTHON} is not there"
    tried = subprocess.run([SYSTEM_PYTHON, "-c", PROBE], capture_output=True, text=True, timeout=60, check=False)
    words = tried.stderr.strip().splitlines()
    return "" if tried.returncode == 0 else f"GStreamer's RTSP server is not installed ({words[-1] if words else '?'})"


class CameraProcess:
    """`with CameraProcess({"mount": "/gate", ...}) as camera`: `camera.port` listens on loopback until the block ends.

    `port` changes when the process is brought back (`revive`): clients reach it through a proxy that is told.
    """

    def __init__(self, *wishes: dict[str, Any]) -> None:
        self.wishes = list(wishes)
        self.port = 0
        self.began_s = 0.0
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()  # one command at a time

    def __enter__(self) -> CameraProcess:
        self.revive()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def alive(self) -> bool:
        return self._process is not None

    def revive(self) -> None:
        """Start the process and give it every mount again."""
        self._process = subprocess.Popen(
            [SYSTEM_PYTHON, str(SERVER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "GST_DEBUG": "0", "LIBVA_MESSAGING_LEVEL": "0"},
        )
        hello = self._answer()
        self.port, self.began_s = hello["port"], hello["began_s"]
        for wish in self.wishes:
            self._say(wish)

    def ask(self, **wish: Any) -> None:
        """Send one command; a mount stays across `revive`."""
        if "mount" in wish:
            self.wishes = [w for w in self.wishes if w.get("mount") != wish["mount"]] + [wish]
        self._say(wish)

    def kill(self) -> None:
        """As a power cut: no goodbye."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        process.wait(10)

    def hang(self) -> None:
        """Stop the process as it stands; its sockets stay open."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _say(self, wish: dict[str, Any]) -> None:
        with self._lock:
            assert self._process is not None
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(wish) + "\n")
            self._process.stdin.flush()
            answer = self._answer()
        assert answer == {"done": True}, answer

    def _answer(self) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the camera process ended (exit {self._process.wait(10)})")
        answer: dict[str, Any] = json.loads(line)
        return answer
