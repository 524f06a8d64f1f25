"""What an address turns out to be once it is opened: a recording loses no frame, a camera is watched as one."""

from __future__ import annotations

import functools
import http.server
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest

from streampose.build import describe, first_reading
from streampose.config import validate
from streampose.sources import libav, limits
from tests.loopback import tcp_server
from tests.media import write_video
from tests.test_build import kept, nobody, opened


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and the address of the plain server that hands it out, which knows no byte ranges."""
    folder = tmp_path / "web"
    folder.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as served:
        served.handle_error = lambda request, address: None  # type: ignore[method-assign]  # clients hang up here
        thread = threading.Thread(target=served.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield folder, f"http://127.0.0.1:{served.server_address[1]}"
        served.shutdown()
        thread.join(5)


def write_playlist(recording: Path, path: Path) -> None:
    """The recording in segments, as they are."""
    with av.open(str(recording)) as clip, av.open(str(path), "w", format="hls") as playlist:
        stream = clip.streams.video[0]
        copied = playlist.add_stream_from_template(stream)
        for packet in clip.demux(stream):
            packet.stream = copied
            if packet.size:
                playlist.mux(packet)


@pytest.mark.parametrize("name", ["play.m3u8", "clip", "long.webm"])
def test_what_turns_out_to_be_a_recording_loses_no_frame(
    web: tuple[Path, str], name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Its address speaks of a camera, it is read as fast as the disk can, and the networks are slow."""
    folder, address = web
    write_video(folder / "clip.ts", frames=60)
    if name == "play.m3u8":
        write_playlist(folder / "clip.ts", folder / name)
    elif name == "clip":
        (folder / "clip.ts").rename(folder / name)
    else:  # no length is told by it, only by its server
        write_video(folder / name, frames=60, codec="vp8", mux_options={"live": "1"})

    class Slow:
        def is_warm(self, width: int, height: int) -> bool:
            return True

        def warm_up(self, width: int, height: int) -> None: ...

        def __call__(self, images: list[Any]) -> list[Any]:
            time.sleep(0.01 * len(images))
            return [(np.zeros((0, 4), np.float32), np.zeros(0, np.float32)) for _ in images]

    class Pose:
        skeleton = SimpleNamespace(sigmas=np.full(17, 0.05), keypoints=("nose",) * 17, body=None)

        def __call__(self, images: list[Any], boxes: list[Any]) -> list[Any]:
            return [np.zeros((len(own), 17, 3), np.float32) for own in boxes]

    models: Any = SimpleNamespace(detectors={1.0: Slow()}, pose=Pose(), draw_skeleton=None, facts=dict)
    camera: dict[str, Any] = {"url": f"{address}/{name}"}
    if name != "long.webm":  # by its address it is a recording, of which no age can be wanted
        camera["max_age"] = 0.02
    record = {"jsonl": {"path": str(folder / "a.jsonl")}}
    run = first_reading(validate({"cameras": {"a": camera}, "sinks": [record]}), models).run
    over_s = time.monotonic() + 60.0
    run.execute(lambda: run.stop() if time.monotonic() > over_s else None)
    assert run.failures() == []
    header, *_, footer = [json.loads(line) for line in (folder / "a.jsonl").read_text().splitlines()]
    assert not header["live"]
    assert (footer["decoded"], footer["written"], footer["dropped"]) == (60, 60, {})
    assert run.cameras["a"].lane.frames.policy == "lossless"
    said = [text for text in caplog.messages if "max_age" in text]
    assert said == ["a: is a recording: every frame of it is analysed, and max_age is not kept"] * ("max_age" in camera)


def test_what_turns_out_to_be_a_camera_is_watched_as_one(tmp_path: Path) -> None:
    """Its address speaks of a recording, its server of no length: the newest picture wins, and that is dark."""
    with av.open(str(tmp_path / "dark.mp4"), "w", options={"movflags": "frag_keyframe+empty_moov"}) as output:
        stream = output.add_stream("libx264", rate=12)
        stream.width, stream.height, stream.pix_fmt = 192, 128, "yuv420p"
        for _ in range(60):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((128, 192, 3), np.uint8), "bgr24")))
        output.mux(stream.encode(None))

    def talk(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: video/mp4\r\n\r\n" + (tmp_path / "dark.mp4").read_bytes())
        connection.shutdown(socket.SHUT_WR)

    record = {"jsonl": {"path": str(tmp_path / "a.jsonl")}}
    with tcp_server(talk) as port:
        cameras = {"a": {"url": f"http://127.0.0.1:{port}/stream.mp4?src=yard"}}
        run = first_reading(validate({"cameras": cameras, "sinks": [record]}), nobody()).run
        over_s = time.monotonic() + 60.0
        run.execute(
            lambda: run.stop() if run.cameras["a"].producer.keeper.runs > 1 or time.monotonic() > over_s else None
        )
    assert run.failures() == []
    assert run.cameras["a"].lane.frames.policy == "latest"
    header, *said = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert header["live"]
    states = [line["state"] for line in said if line["type"] == "camera"]
    assert "dark" in states
    assert "reconnecting" in states, "its end is an outage"


def test_a_playlist_that_stands_still_is_analysed_and_recorded_once(
    web: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its encoder is dead, its server is not: each time it is opened anew it has the same pictures."""
    for module in (libav, limits):
        monkeypatch.setattr(module, "SEGMENT_S", 1.0)
    folder, address = web
    write_video(folder / "clip.ts", frames=30)
    write_playlist(folder / "clip.ts", folder / "live.m3u8")
    text = (folder / "live.m3u8").read_text()
    (folder / "live.m3u8").write_text(text.replace("#EXT-X-ENDLIST\n", ""))
    sinks = [{"jsonl": {"path": str(tmp_path / "a.jsonl")}}]
    sinks.append({"record": {"path": str(tmp_path / "a.mkv"), "mode": "source"}})
    camera = {"url": f"{address}/live.m3u8", "open_timeout": 1.0}
    run = first_reading(validate({"cameras": {"a": camera}, "sinks": sinks}), nobody()).run
    over_s = time.monotonic() + 60.0
    run.execute(lambda: run.stop() if run.cameras["a"].producer.keeper.runs > 2 or time.monotonic() > over_s else None)
    assert run.failures() == []
    *said, footer = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert footer["decoded"] == 30
    whys = [line["reason"] for line in said if line["type"] == "camera" and line["state"] == "reconnecting"]
    assert len(whys) >= 1
    assert all("its playlist stands still" in why for why in whys)
    (recorded,) = tmp_path.glob("a*.mkv")
    with av.open(str(recorded)) as container:
        assert len(list(container.decode(video=0))) == 30


@pytest.mark.parametrize("keys", [{"hours": ["06:00-22:00"]}, {"policy": "latest"}])
def test_an_address_that_may_be_either_is_a_camera_where_keys_of_one_are_asked_of_it(keys: dict[str, Any]) -> None:
    url = "http://nvr:1984/api/stream.mp4?src=yard"
    assert not kept(url).live
    assert kept(url, **keys).live
    assert opened(url, **keys)["read_timeout_s"] == opened("rtsp://nvr/yard")["read_timeout_s"]
    (said,) = describe(validate({"cameras": {"gate": {"url": url, "max_age": "1s", **keys}}}))
    assert said.startswith("gate: policy latest")
    assert not kept("clip.mp4", policy="latest").live, "a file"
