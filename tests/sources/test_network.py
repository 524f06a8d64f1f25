"""Network sources on loopback: files over HTTP, MJPEG, HLS, fragments, snapshots; which is a recording, which a camera."""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from av.video.stream import VideoStream

from streampose.errors import TransientSourceError
from streampose.pipeline.keeper import Keeper, KeepOptions, Lost
from streampose.pipeline.workers import WorkerGroup
from streampose.sinks.remux import Remuxer
from streampose.sources import decoder, libav, limits, video
from streampose.sources.barcode import read_code
from streampose.sources.base import Corrupt, Picture
from streampose.sources.decoder import PacketTap
from streampose.sources.libav import VideoOptions
from streampose.sources.repeats import Seen
from streampose.sources.video import SNAPSHOT_STEP_S, VideoSource
from tests.clocks import StillClock
from tests.loopback import tcp_server
from tests.media import ENCODERS, picture, write_video
from tests.sources.web_server import PATIENT, QUICK, drain, failure, numbers, watch, watch_to_the_end


@pytest.mark.parametrize(("name", "codec"), [("clip.mp4", "h264"), ("clip.webm", "vp8"), ("fast.mp4", "h264")])
def test_a_file_behind_http_is_a_recording(server: str, tmp_path: Path, name: str, codec: str) -> None:
    faststart = {"movflags": "faststart"} if name == "fast.mp4" else {}
    write_video(tmp_path / name, codec=codec, frames=30, mux_options=faststart)
    source = VideoSource(f"http://{server}/{name}", VideoOptions(open_timeout_s=1, read_timeout_s=1))  # whole numbers
    info = source.open()
    items = list(source.frames(lambda: False))
    source.close()
    assert (info.kind, info.live) == ("stream", False)
    assert numbers(items) == list(range(30))
    assert {item.wall_source for item in items if isinstance(item, Picture)} == {"none"}


def test_a_server_without_ranges_gives_an_mp4_whose_index_is_first_and_says_what_the_other_lacks(
    server: str, tmp_path: Path
) -> None:
    """Longer than what libav keeps of a stream to go back in it."""
    write_video(
        tmp_path / "whole.mp4", frames=60, size=(640, 480), codec="mjpeg", mux_options={"movflags": "faststart"}
    )
    assert len(numbers(watch(f"http://{server}/whole.mp4"))) == 60
    write_video(tmp_path / "whole.mp4", frames=60, size=(640, 480), codec="mjpeg")
    error = failure(f"http://{server}/whole.mp4")
    assert error.kind == "ended"
    assert "ended the stream before its first picture; its index may lie at its end" in str(error)
    assert "a server that knows byte ranges; use such a one, or put the index first" in str(error)


def test_mjpeg_is_live_and_timed_by_arrival(server: str) -> None:
    began_s = time.time()
    source = VideoSource(f"http://{server}/mjpeg", QUICK)
    info = source.open()
    items: list[Picture | Corrupt] = []
    with pytest.raises(TransientSourceError, match="ended") as caught:
        drain(source, items)
    source.close()
    assert caught.value.kind == "ended"
    assert (info.live, info.codec, info.clockless) == (True, "mjpeg", True)
    assert info.nominal_fps is None, "libav's 25 fps nobody has announced"
    assert numbers(items) == list(range(20))
    shown = [item for item in items if isinstance(item, Picture)]
    assert {item.wall_source for item in shown} == {"arrival"}
    assert {item.pts for item in shown} == {None}
    assert np.diff([item.time_s for item in shown]).min() > 0
    walls = [item.wall_s or 0.0 for item in shown]
    assert began_s <= walls[0] < walls[-1] <= time.time()
    assert all(item.captured_s <= item.arrival_s for item in shown if item.captured_s is not None)


def recorded_beside(url: str, path: Path) -> tuple[list[float], list[float]]:
    """Times of the pictures of a live source, from the first on, and of those of its recorded stream, seconds."""
    remuxer = Remuxer(path, "gate")
    source = VideoSource(url, QUICK, tap=remuxer.write)
    items: list[Picture | Corrupt] = []
    try:
        source.open()
        with pytest.raises(TransientSourceError):
            drain(source, items)
    finally:
        source.close()
        remuxer.close()
    assert remuxer.error is None
    times = [item.time_s for item in items if isinstance(item, Picture)]
    with av.open(str(path)) as container:
        stamps = [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]
    return [t - times[0] for t in times], [t - stamps[0] for t in stamps]


@pytest.mark.parametrize("ending", ["mkv", "mp4"])
def test_the_recorded_stream_of_a_format_without_stamps_lasts_as_long_as_its_pictures(
    server: str, tmp_path: Path, ending: str
) -> None:
    times, stamps = recorded_beside(f"http://{server}/mjpeg-slow", tmp_path / f"gate.{ending}")
    assert len(times) == len(stamps) == 10
    assert stamps[-1] == pytest.approx(times[-1], rel=0.3), "libav's 25 fps would make it a quarter"


def test_the_recorded_stream_of_bare_h264_lasts_as_long_as_its_pictures(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.h264", frames=30, gop=10)
    with av.open(str(tmp_path / "clip.h264")) as container:
        units = [bytes(packet) for packet in container.demux(video=0) if packet.size]

    def talk(connection: socket.socket) -> None:
        for unit in units:
            connection.sendall(unit)
            time.sleep(0.1)
        connection.shutdown(socket.SHUT_WR)

    with tcp_server(talk) as port:
        times, stamps = recorded_beside(f"tcp://127.0.0.1:{port}", tmp_path / "gate.mkv")
    assert len(stamps) == len(times)
    assert min(np.diff(stamps)) > 0
    assert stamps[-1] == pytest.approx(times[-1], rel=0.3)


def write_playlist(folder: Path, first: int = 0) -> None:
    """`live.m3u8` of forty pictures in four segments, numbered from `first` on."""
    options = {"hls_time": "1", "hls_list_size": "0"}
    with av.open(str(folder / "live.m3u8"), "w", format="hls", options=options) as output:
        stream = output.add_stream("libx264", rate=10, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 192, 128, "yuv420p", 10
        for number in range(40):
            frame = av.VideoFrame.from_ndarray(picture(first + number), format="bgr24")
            frame.pts = number
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))


def test_hls_is_joined(server: str, tmp_path: Path) -> None:
    write_playlist(tmp_path)
    assert numbers(watch(f"http://{server}/live.m3u8")) == list(range(40))


@pytest.mark.parametrize("joined", [0, 10])
def test_pixels_of_a_camera_are_square_also_where_it_is_joined_between_key_frames(joined: int, tmp_path: Path) -> None:
    path = tmp_path / "clip.ts"
    write_video(path, frames=120, gop=60, pixel_ratio=Fraction(12, 11))
    with av.open(str(path)) as container:
        places = [packet.pos for packet in container.demux(video=0) if packet.size]
    data = path.read_bytes()[places[joined] // 188 * 188 if joined else 0 :]
    items = watch_to_the_end(data, "application/octet-stream")
    assert {item.image.shape for item in items if isinstance(item, Picture)} == {(128, 209, 3)}


def write_live(folder: Path, segments: int, *, first: int = 0) -> None:
    """`play` with the first `segments` of a playlist that goes on; its pictures are numbered from `first` on."""
    write_playlist(folder, first)
    path = folder / "live.m3u8"
    parts = path.read_text().replace("#EXT-X-ENDLIST\n", "").split("#EXTINF")
    path.write_text("#EXTINF".join(parts[: segments + 1]))


def watch_until_silent(url: str, seen: Seen, record: PacketTap | None = None) -> tuple[list[int | None], int]:
    """Numbers of the pictures of a live playlist, and how many packets its tap had, until nothing new comes."""
    items: list[Picture | Corrupt] = []
    packets: list[int | None] = []

    def tap(packet: av.Packet[VideoStream], stream: VideoStream, wall_s: float | None) -> None:
        packets.append(packet.pts)
        if record is not None:
            record(packet, stream, wall_s)

    source = VideoSource(url, replace(QUICK, seen=seen), tap=tap)
    source.open()
    with pytest.raises(TransientSourceError, match="its playlist stands still: nothing new for") as caught:
        drain(source, items)
    source.close()
    assert caught.value.kind == "timeout"
    return numbers(items), len(packets)


@pytest.fixture
def short_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (libav, limits):
        monkeypatch.setattr(module, "SEGMENT_S", 1.0)


@pytest.mark.usefixtures("short_silence")
def test_a_playlist_that_stands_still_is_read_to_its_limit_once(server: str, tmp_path: Path) -> None:
    write_live(tmp_path, 2)
    with libav.open_container(f"http://{server}/play", QUICK) as container:
        packets = list(limits.packets_of(container, container.streams.video[0]))
    assert [packet.size > 0 for packet in packets] == [True] * 20 + [False], "its pictures, and the mark of the end"


@pytest.mark.usefixtures("short_silence")
def test_a_live_playlist_that_is_opened_anew_gives_no_picture_twice_and_loses_none(server: str, tmp_path: Path) -> None:
    """While it stands still nothing is given; the encoder goes on in the same playlist, and starts anew in another."""
    seen, url = Seen(), f"http://{server}/play"
    write_live(tmp_path, 2)
    assert watch_until_silent(url, seen) == (list(range(20)), 20)
    assert watch_until_silent(url, seen) == ([], 0)
    write_live(tmp_path, 4)
    assert watch_until_silent(url, seen) == (list(range(20, 40)), 20)
    write_live(tmp_path, 3, first=100)
    assert watch_until_silent(url, seen) == (list(range(100, 130)), 30), "the same stamps are of other pictures"


@pytest.mark.usefixtures("short_silence")
def test_a_playlist_that_broke_off_within_a_segment_is_recorded_whole(server: str, tmp_path: Path) -> None:
    """What is new then refers to a key frame that was given before."""
    seen, url = Seen(), f"http://{server}/play"
    recorded = Remuxer(tmp_path / "own.mkv", "gate")
    write_live(tmp_path, 2)
    second = sorted(tmp_path.glob("live*.ts"))[1]
    whole = second.read_bytes()
    second.write_bytes(whole[: len(whole) // 188 // 2 * 188])
    before, _ = watch_until_silent(url, seen, recorded.write)
    write_live(tmp_path, 4)
    behind, _ = watch_until_silent(url, seen, recorded.write)
    recorded.close()
    assert 10 < len(before) < 20
    assert before + behind == list(range(40))
    codes: set[int] = set()
    for path in recorded.outputs():
        with av.open(path) as container:
            found = [read_code(frame.to_ndarray(format="bgr24")) for frame in container.decode(video=0)]
        codes |= {code[0] for code in found if code}
    assert codes == set(range(40))


@pytest.mark.parametrize(
    ("version", "lengths", "there", "until_s"),
    [
        (3, (4.0, 4.0), 2, None), (3, (4.04, 4.04), 2, None), (2, (5, 5), 2, None),
        (3, (4.04, 4.04), 1, 8.08), (3, (4.0, 4.0), 1, 8.0), (2, (4, 4), 1, None),
    ],
)  # fmt: skip
def test_a_recording_in_segments_is_cut_only_where_one_is_missing(
    server: str, tmp_path: Path, version: int, lengths: tuple[float, ...], there: int, until_s: float | None
) -> None:
    """After a discontinuity stamps begin anew, and before version 3 lengths are whole seconds (RFC 8216, 4.3.2), so that
    a missing end is not told."""
    lines = ["#EXTM3U", f"#EXT-X-VERSION:{version}", "#EXT-X-TARGETDURATION:5"]
    for number, length in enumerate(lengths):
        if number < there:
            write_video(tmp_path / f"{number}.ts", frames=48)
        lines += ["#EXT-X-DISCONTINUITY"] * bool(number) + [f"#EXTINF:{length},", f"{number}.ts"]
    (tmp_path / "vod.m3u8").write_text("\n".join([*lines, "#EXT-X-ENDLIST", ""]))
    (tmp_path / "all.m3u8").write_text("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=90000\n\n#\nvod.m3u8\n")
    for url in (f"http://{server}/vod.m3u8", f"http://{server}/all.m3u8", str(tmp_path / "vod.m3u8")):
        items = watch(url)
        assert [item.until_s for item in items if isinstance(item, Corrupt)] == ([] if until_s is None else [until_s])
        assert len(numbers(items)) == 48 * there


def test_a_missing_end_is_told_where_the_playlist_cannot_be_read_again(tmp_path: Path) -> None:
    write_video(tmp_path / "0.ts", frames=48)
    path = tmp_path / "vod.m3u8"
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n0.ts\n#EXTINF:4,\n1.ts\n#EXT-X-ENDLIST\n")
    source = VideoSource(str(path))
    source.open()
    path.unlink()
    items: list[Picture | Corrupt] = []
    drain(source, items)
    source.close()
    assert [item.until_s for item in items if isinstance(item, Corrupt)] == [8.0]


@pytest.mark.parametrize(("name", "live"), [("live.m3u8", False), ("play?id=3", False), ("play", True)])
def test_a_playlist_says_itself_that_it_comes_in_segments_and_whether_it_has_an_end(
    server: str, tmp_path: Path, name: str, live: bool
) -> None:
    write_playlist(tmp_path)
    if live:
        path = tmp_path / "live.m3u8"
        path.write_text(path.read_text().replace("#EXT-X-ENDLIST", ""))
    source = VideoSource(f"http://{server}/{name}", QUICK)
    info = source.open()
    source.close()
    assert (info.segmented, info.live) == (True, live)


def test_nothing_is_written_of_a_recording_in_the_place_of_a_camera(server: str, tmp_path: Path) -> None:
    write_playlist(tmp_path)
    path = tmp_path / "live.m3u8"
    ended = path.read_text()
    path.write_text(ended.replace("#EXT-X-ENDLIST", ""))
    remuxer = Remuxer(tmp_path / "gate.mp4", "gate")
    stop = threading.Event()
    url = f"http://{server}/live.m3u8"
    with WorkerGroup() as group:
        keep = KeepOptions(live=True, backoff_first_s=0.01, backoff_cap_s=0.02)
        keeper = Keeper("gate", lambda: VideoSource(url, PATIENT, tap=remuxer.write), group, stop.is_set, keep)
        refused = 0
        for event in keeper.events():
            if isinstance(event, Picture):
                path.write_text(ended)
            elif isinstance(event, Lost):
                refused += "sends a recording now" in event.reason
            if refused == 3:
                stop.set()
    remuxer.close()
    assert remuxer.outputs() == (str(tmp_path / "gate.mp4"),)


@pytest.mark.parametrize(("name", "codec"), [("clip.webm", "vp8"), ("clip", "h264")])
def test_what_has_a_length_in_bytes_alone_is_a_recording(server: str, tmp_path: Path, name: str, codec: str) -> None:
    """A Matroska file that was never finished tells no length."""
    write_video(tmp_path / "clip.webm", frames=12, codec=codec, container_format="matroska", mux_options={"live": "1"})
    (tmp_path / "clip.webm").rename(tmp_path / name)
    source = VideoSource(f"http://{server}/{name}", QUICK)
    info = source.open()
    assert (info.live, info.duration_s, info.segmented) == (False, None, False)
    assert numbers(list(source.frames(lambda: False))) == list(range(12))  # type: ignore[arg-type]
    source.close()


@pytest.mark.parametrize("container_format", ["mpegts", "mp4"])
def test_a_camera_behind_http_is_opened_by_its_first_pictures(
    tmp_path: Path, container_format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten of five a second; libav of itself would want those of four seconds."""
    monkeypatch.setitem(ENCODERS, "h264", ("libx264", {"tune": "zerolatency"}))  # which puts its rate into the stream
    clip = tmp_path / "clip"
    flags = {"movflags": "frag_every_frame+empty_moov+default_base_moof"} if container_format == "mp4" else {}
    flags = flags or {"muxrate": "400000"}  # its bytes are enough to tell the format
    write_video(clip, frames=50, fps=5, gop=5, container_format=container_format, mux_options=flags)
    with av.open(str(clip)) as container:
        places = [packet.pos for packet in container.demux(video=0) if packet.size and packet.pos is not None]
    data, opened = clip.read_bytes(), threading.Event()
    in_time: list[bool] = []

    def talk(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: application/octet-stream\r\n\r\n" + data[: places[10]])
        in_time.append(opened.wait(3.0))
        connection.sendall(data[places[10] :])
        connection.shutdown(socket.SHUT_WR)

    items: list[Picture | Corrupt] = []
    with tcp_server(talk, patience_s=5.0) as port:
        source = VideoSource(f"http://127.0.0.1:{port}/live", PATIENT)
        info = source.open()
        opened.set()
        with pytest.raises(TransientSourceError, match="ended the stream"):
            drain(source, items)
        source.close()
    assert in_time == [True]
    assert (info.live, info.nominal_fps, info.width) == (True, 5.0, 192)
    assert numbers(items) == list(range(50))


@pytest.mark.parametrize("flags", ["frag_keyframe+empty_moov+default_base_moof", "dash", "frag_keyframe+empty_moov"])
def test_an_mp4_in_fragments_is_a_recording_where_it_has_a_length_and_a_camera_where_it_has_none(
    server: str, tmp_path: Path, flags: str
) -> None:
    """What libav calls its duration is what has arrived."""
    write_video(tmp_path / "frag.mp4", frames=60, mux_options={"movflags": flags})
    for url, live in (
        (str(tmp_path / "frag.mp4"), False), (f"http://{server}/frag.mp4", False), (f"http://{server}/fragments", True),
    ):  # fmt: skip
        source = VideoSource(url, QUICK)
        info = source.open()
        assert (info.live, info.duration_s is None) == (live, live), url
        items: list[Picture | Corrupt] = []
        with pytest.raises(TransientSourceError, match="ended the stream") if live else contextlib.nullcontext():
            drain(source, items)
        source.close()
        assert numbers(items) == list(range(60))


@contextlib.contextmanager
def snapshot_camera(endings: list[str], asked: list[float]) -> Iterator[str]:
    """What a camera shows now, numbered and coded as `endings` say (` cut`: half of it), and then it is out of order;
    gives its address.
    `asked` gets the (monotonic) times of the requests."""

    def talk(connection: socket.socket) -> None:
        connection.recv(4096)
        number = len(asked)
        asked.append(time.monotonic())
        if number < len(endings):
            data = cv2.imencode(endings[number].removesuffix(" cut"), picture(number))[1].tobytes()
            head = f"HTTP/1.0 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
            connection.sendall(head.encode() + data[: len(data) // 2 if "cut" in endings[number] else None])
        else:
            connection.sendall(b"HTTP/1.0 503 Out of order\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)

    with tcp_server(talk, patience_s=5.0) as port:
        yield f"http://127.0.0.1:{port}/snapshot.cgi?ch=1"


def test_an_address_of_one_picture_is_a_camera_that_is_asked_again(tmp_path: Path) -> None:
    """One run, until a request fails; its recorded stream is one file."""
    asked: list[float] = []
    items: list[Picture | Corrupt] = []
    remuxer = Remuxer(tmp_path / "gate.mkv", "gate")
    with snapshot_camera([".jpg"] * 4, asked) as url:
        source = VideoSource(url, QUICK, tap=remuxer.write)
        info = source.open()
        with pytest.raises(TransientSourceError, match="cannot be read"):
            drain(source, items)
        source.close()
        remuxer.close()
    assert (info.live, info.duration_s, info.frame_count) == (True, None, None)
    assert (info.clockless, info.nominal_fps) == (True, None), "libav's 25 fps nobody has announced"
    assert numbers(items) == list(range(4))
    shown = [item for item in items if isinstance(item, Picture)]
    assert [item.time_s - shown[0].time_s for item in shown] == pytest.approx(
        [item.arrival_s - shown[0].arrival_s for item in shown]
    ), "when they came"
    assert len(asked) == 5
    assert min(at_s - asked[0] - number * SNAPSHOT_STEP_S for number, at_s in enumerate(asked)) >= 0.0
    assert remuxer.outputs() == (str(tmp_path / "gate.mkv"),)
    with av.open(str(tmp_path / "gate.mkv")) as container:
        assert len(list(container.decode(video=0))) == 4


def test_a_camera_of_single_pictures_that_codes_them_another_way_is_opened_anew() -> None:
    """Some say that they are offline by a PNG."""
    with snapshot_camera([".jpg", ".jpg", ".png", ".png", ".png"], []) as url:
        for codec, seen, why in (
            ("mjpeg", [0, 1], "no longer sends mjpeg; opened anew"),
            ("png", [3, 4], "cannot be read"),
        ):
            source = VideoSource(url, QUICK)
            assert source.open().codec == codec
            items: list[Picture | Corrupt] = []
            with pytest.raises(TransientSourceError, match=why):
                drain(source, items)
            source.close()
            assert numbers(items) == seen


def test_half_a_picture_of_a_camera_of_single_pictures_is_damage() -> None:
    items: list[Picture | Corrupt] = []
    with snapshot_camera([".jpg", ".jpg", ".jpg cut"], []) as url:
        source = VideoSource(url, QUICK)
        source.open()
        with pytest.raises(TransientSourceError):
            drain(source, items)
        source.close()
    assert numbers(items) == [0, 1]
    assert [item.what for item in items if isinstance(item, Corrupt)] == [f"{url}: packet 3 is cut off"]


def test_an_address_of_one_picture_that_stays_the_same_is_asked_until_it_is_stopped(
    server: str, tmp_path: Path
) -> None:
    cv2.imwrite(str(tmp_path / "snapshot.jpg"), picture(7))
    assert numbers(watch(f"http://{server}/snapshot.jpg", at_most=3)) == [7, 7, 7]


def test_live_transport_stream_keeps_b_frames_and_begins_at_a_key_frame(tmp_path: Path) -> None:
    """Over TCP, joined in the middle of a group of pictures."""
    path = tmp_path / "clip.ts"
    write_video(path, frames=60, gop=20, b_frames=2)
    data = path.read_bytes()
    with av.open(str(path)) as container:
        second = [packet.pos for packet in container.demux(video=0) if packet.is_keyframe][1]
    packet_start = (second // 188 - 12) * 188  # a dozen packets before the second key frame

    def send(connection: socket.socket) -> None:
        connection.sendall(data[: 188 * 3] + data[packet_start:])
        connection.close()

    with tcp_server(send) as port:
        source = VideoSource(f"tcp://127.0.0.1:{port}", QUICK)
        source.open()
        items: list[Picture | Corrupt] = []
        with pytest.raises(TransientSourceError):
            drain(source, items)
        source.close()
    seen = [number for number in numbers(items) if number is not None]
    assert seen[0] == 20
    assert seen == list(range(20, 60))


def test_pictures_and_recorded_files_of_who_reads_slowly_have_the_time_of_capture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """12 pictures a second, taken three a second for a minute: each comes later than the one before."""
    clock = StillClock()
    clock.time = clock.monotonic  # type: ignore[attr-defined]
    for module in (decoder, video):
        monkeypatch.setattr(module, "time", clock)
    write_video(tmp_path / "clip.ts", frames=240)
    data = (tmp_path / "clip.ts").read_bytes()

    def send(connection: socket.socket) -> None:
        connection.sendall(data)
        connection.close()

    shown: list[Picture] = []
    with tcp_server(send) as port:
        remuxer = Remuxer(tmp_path / "{camera}.mkv", "gate", segment_s=5.0)
        source = VideoSource(f"tcp://127.0.0.1:{port}", QUICK, tap=remuxer.write)
        source.open()
        for item in itertools.islice(source.frames(lambda: False), 240):
            assert isinstance(item, Picture)
            shown.append(item)
            clock.sleep(1 / 12 if len(shown) < 60 else 1 / 3)
        source.close()
        remuxer.close()
    assert shown[-1].arrival_s - shown[-1].time_s > shown[0].arrival_s - shown[0].time_s + 40.0
    np.testing.assert_allclose([item.captured_s for item in shown], [1000.0 + item.time_s for item in shown], atol=0.1)
    np.testing.assert_allclose([item.wall_s for item in shown], [1000.0 + item.time_s for item in shown], atol=0.1)
    assert shown[-1].wall_uncertainty_s == pytest.approx(0.1, abs=0.01)
    assert len(remuxer.outputs()) == 4
    for path in remuxer.outputs():
        with av.open(path) as container:
            note = json.loads(container.metadata["COMMENT"])
            code = read_code(next(container.decode(video=0)).to_ndarray(format="bgr24"))
        assert code is not None
        assert note["start_wall"] == pytest.approx(shown[code[0]].wall_s, abs=0.1)
        assert "start_time" not in note, "nobody told it the camera's"
