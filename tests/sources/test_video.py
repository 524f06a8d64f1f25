"""Video files: every picture exactly once, upright, at its own time; bad files in one line."""

from __future__ import annotations

import logging
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streampose.errors import PermanentSourceError
from streampose.messages import SourceInfo
from streampose.sources import libav, said
from streampose.sources.barcode import read_code
from streampose.sources.base import Corrupt, Picture
from streampose.sources.libav import VideoOptions
from streampose.sources.video import VideoSource
from tests.media import TIME_BASE, constant_pts, cut, damage, picture, write_video

Items = list[Picture | Corrupt]


def watch(path: Path, options: VideoOptions | None = None) -> tuple[SourceInfo, Items]:
    source = VideoSource(str(path), options)
    try:
        info = source.open()
        return info, list(source.frames(lambda: False))
    finally:
        source.close()


def pictures(items: Items) -> list[Picture]:
    return [item for item in items if isinstance(item, Picture)]


def numbers(items: Items) -> list[int | None]:
    codes = [read_code(item.image) for item in pictures(items)]
    return [code[0] if code else None for code in codes]


@pytest.mark.parametrize(
    ("codec", "suffix", "b_frames"),
    [
        ("h264", "mp4", 0), ("h264", "mp4", 3), ("h264", "mov", 2), ("h264", "mkv", 2), ("h264", "ts", 2),
        ("h264", "flv", 2), ("h264", "avi", 2), ("hevc", "mp4", 2), ("hevc", "mkv", 2), ("hevc", "ts", 2),
        ("vp8", "webm", 0), ("vp9", "webm", 0), ("vp9", "mp4", 0), ("av1", "mp4", 0), ("mjpeg", "avi", 0),
        ("mjpeg", "mkv", 0), ("mpeg4", "mp4", 2),
    ],
)  # fmt: skip
def test_every_picture_comes_once_in_order_at_its_time(tmp_path: Path, codec: str, suffix: str, b_frames: int) -> None:
    base = Fraction(1, 12) if suffix == "avi" or codec == "mpeg4" else TIME_BASE
    path = tmp_path / f"clip.{suffix}"
    written = write_video(path, codec=codec, b_frames=b_frames, frames=24, fps=12, time_base=base)
    info, items = watch(path)
    assert numbers(items) == list(range(24))
    assert len(items) == 24
    assert (info.codec, info.width, info.height, info.live) == (codec, 192, 128, False)
    expected = np.array(written) * float(base)
    np.testing.assert_allclose([p.time_s for p in pictures(items)], expected - expected[0], atol=0.0006)  # Matroska: ms
    stamps = [float(p.pts * p.time_base) for p in pictures(items) if p.pts is not None and p.time_base is not None]
    np.testing.assert_allclose(np.diff(stamps), np.diff(expected), atol=0.0011)


def test_the_ticks_of_a_container_are_no_rate(tmp_path: Path) -> None:
    """What libav says where it has seen one picture, and the container counts in milliseconds (FLV, Matroska)."""
    write_video(tmp_path / "clip.mkv", pts=range(24), time_base=Fraction(1, 1000), fps=1000.0)
    info, _ = watch(tmp_path / "clip.mkv")
    assert info.nominal_fps is None


@pytest.mark.parametrize("fps", [8.0, 60.0, 30_000 / 1001])
def test_rates_and_durations(tmp_path: Path, fps: float) -> None:
    path = tmp_path / "clip.mp4"
    write_video(path, fps=fps, frames=30)
    info, items = watch(path)
    assert info.nominal_fps == pytest.approx(fps, rel=1e-3)
    assert info.duration_s == pytest.approx(30 / fps, rel=1e-3)
    assert info.frame_count == 30
    assert pictures(items)[-1].time_s == pytest.approx(29 / fps, abs=1e-4)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.integers(900, 90_000), min_size=6, max_size=20), b_frames=st.sampled_from([0, 2]))
def test_variable_rate_keeps_the_stamps_that_were_written(tmp_path: Path, steps: list[int], b_frames: int) -> None:
    pts = [0, *np.cumsum(steps).tolist()]
    path = tmp_path / "vfr.mp4"
    write_video(path, pts=pts, b_frames=b_frames)
    _, items = watch(path)
    assert numbers(items) == list(range(len(pts)))
    np.testing.assert_allclose([p.time_s for p in pictures(items)], np.array(pts) / 90_000, atol=1e-4)
    assert not any(p.jump for p in pictures(items))


def test_variable_rate_webm_without_duration(tmp_path: Path) -> None:
    pts = [0, 3000, 9000, 90_000, 93_000, 270_000]
    path = tmp_path / "live.webm"
    write_video(path, pts=pts, codec="vp8", mux_options={"live": "1"})
    info, items = watch(path)
    assert info.duration_s is None
    assert numbers(items) == list(range(6))
    np.testing.assert_allclose([p.time_s for p in pictures(items)], np.array(pts) / 90_000, atol=0.001)


def test_raw_h264_without_any_stamps(tmp_path: Path) -> None:
    path = tmp_path / "clip.h264"
    write_video(path, container_format="h264", b_frames=2, frames=24)
    _, items = watch(path)
    assert numbers(items) == list(range(24))
    np.testing.assert_allclose(np.diff([p.time_s for p in pictures(items)]), 0.04, atol=1e-6)


@pytest.mark.parametrize(
    ("rotation", "hflip"), [(90, False), (180, False), (-90, False), (270, False), (0, True), (90, True)]
)
def test_turned_and_mirrored_recordings_come_upright(tmp_path: Path, rotation: int, hflip: bool) -> None:
    path = tmp_path / "phone.mp4"
    write_video(path, size=(192, 128), rotation=rotation, hflip=hflip, frames=5)
    info, items = watch(path)
    assert (info.width, info.height) == (192, 128)
    assert numbers(items) == list(range(5))
    for number, item in enumerate(pictures(items)):
        truth = picture(number, 0.0)[60:].astype(int)
        assert np.abs(item.image[60:].astype(int) - truth).mean() < 6
        assert item.image.flags["C_CONTIGUOUS"]


def test_sound_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "sound.mp4"
    write_video(path, audio=True, frames=24)
    _, items = watch(path)
    assert numbers(items) == list(range(24))
    assert len(items) == 24


def test_a_sound_file_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "only.mp4"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("aac", rate=48_000)
        for block in range(20):
            frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), format="fltp", layout="stereo")
            frame.sample_rate, frame.pts = 48_000, block * 1024
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    with pytest.raises(PermanentSourceError, match="holds no video"):
        watch(path)


def test_the_containers_creation_time_is_the_wall_clock(tmp_path: Path) -> None:
    path = tmp_path / "dated.mp4"
    write_video(path, metadata={"creation_time": "2026-05-01T10:00:00.000000Z"}, frames=12, fps=12)
    _, items = watch(path)
    assert {p.wall_source for p in pictures(items)} == {"container"}
    np.testing.assert_allclose([p.wall_s for p in pictures(items)], 1777629600 + np.arange(12) / 12, atol=1e-3)


def test_a_clock_that_was_never_set_is_no_creation_time(tmp_path: Path) -> None:
    path = tmp_path / "zero.mp4"
    write_video(path, metadata={"creation_time": "1970-01-01T00:00:01Z"}, frames=3)
    _, items = watch(path)
    assert {(p.wall_source, p.wall_s) for p in pictures(items)} == {("none", None)}


@pytest.mark.parametrize(("suffix", "codec"), [("mp4", "h264"), ("mkv", "h264"), ("webm", "vp8"), ("ts", "h264")])
def test_a_cut_file_gives_all_it_holds_and_says_that_it_was_cut(tmp_path: Path, suffix: str, codec: str) -> None:
    whole = tmp_path / f"whole.{suffix}"
    options = {"movflags": "faststart"} if suffix == "mp4" else {}
    write_video(whole, codec=codec, frames=60, mux_options=options)
    _, items = watch(cut(whole, 0.6, tmp_path / f"cut.{suffix}"))
    seen = numbers(items)
    assert seen == list(range(len(seen)))
    assert 20 <= len(seen) < 60
    if suffix != "ts":  # a transport stream promises no length
        assert isinstance(items[-1], Corrupt)
        assert "is cut" in items[-1].what
    if suffix == "mp4":
        assert sum(item.frames for item in items if isinstance(item, Corrupt)) + len(seen) in (59, 60)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "flv"])
def test_a_recording_whose_stamps_begin_late_is_whole(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"late.{suffix}"
    write_video(path, pts=[5_400_000 + pts for pts in constant_pts(24, 12)])
    info, items = watch(path)
    assert numbers(items) == list(range(24))
    assert not any(isinstance(item, Corrupt) for item in items)
    assert info.duration_s == pytest.approx(2.0, abs=0.1)
    assert pictures(items)[0].time_s == 0.0


def spoil(path: Path, packets: range, into: Path) -> Path:
    """`path` with these packets zeroed."""
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        found = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    for place in packets:
        start, size = found[place]
        data[start : start + size] = bytes(size)
    into.write_bytes(data)
    return into


def test_a_recording_whose_beginning_is_damaged_begins_where_its_stream_does(tmp_path: Path) -> None:
    whole = tmp_path / "whole.mp4"
    write_video(whole, metadata={"creation_time": "2026-05-01T10:00:00Z"}, frames=60, fps=12, gop=24)
    _, items = watch(spoil(whole, range(24), tmp_path / "spoilt.mp4"))
    seen = pictures(items)
    assert [number for number in numbers(items) if number is not None] == list(range(24, 60))
    np.testing.assert_allclose([p.time_s for p in seen], np.arange(24, 60) / 12, atol=1e-3)
    assert seen[0].wall_s == pytest.approx(1777629602.0)
    assert {item.time_s for item in items if isinstance(item, Corrupt)} == {0.0}


def test_what_an_edit_list_leaves_out_at_the_beginning_is_no_damage(tmp_path: Path) -> None:
    write_video(tmp_path / "whole.mp4", frames=48, gop=24)
    with av.open(str(tmp_path / "whole.mp4")) as whole, av.open(str(tmp_path / "trimmed.mp4"), "w") as trimmed:
        stream = whole.streams.video[0]
        copied = trimmed.add_stream_from_template(stream)
        for packet in whole.demux(stream):
            if packet.size and packet.pts is not None and packet.dts is not None and stream.time_base is not None:
                shift = int(5 / 12 / stream.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, copied
                trimmed.mux(packet)
    _, items = watch(tmp_path / "trimmed.mp4")
    assert numbers(items) == list(range(5, 48))
    assert pictures(items)[0].time_s == 0.0


@pytest.mark.parametrize("codec", ["h264", "mjpeg"])
def test_damage_is_told_at_the_time_of_the_picture_that_it_cost(tmp_path: Path, codec: str) -> None:
    write_video(tmp_path / "whole.mp4", frames=36, fps=12, codec=codec)
    _, items = watch(spoil(tmp_path / "whole.mp4", range(18, 19), tmp_path / "spoilt.mp4"))
    (bad,) = [item for item in items if isinstance(item, Corrupt)]
    assert (bad.time_s, bad.frames) == (pytest.approx(1.5, abs=1e-3), 1)
    assert len(pictures(items)) == 35


@pytest.mark.parametrize(
    ("ratios", "widths"),
    [((None, None), (192, 256)), ((Fraction(4, 3), None), (256, 256)), ((None, Fraction(4, 3)), (192, 341))],
)
def test_a_file_whose_size_changes_begins_a_new_segment(
    tmp_path: Path, ratios: tuple[Fraction | None, Fraction | None], widths: tuple[int, int]
) -> None:
    parts = [tmp_path / "a.ts", tmp_path / "b.ts"]
    write_video(parts[0], size=(192, 128), frames=12, pixel_ratio=ratios[0])
    write_video(parts[1], size=(256, 160), frames=12, pixel_ratio=ratios[1])
    joined = tmp_path / "joined.ts"
    joined.write_bytes(parts[0].read_bytes() + parts[1].read_bytes())
    _, items = watch(joined)
    shapes = [p.image.shape[:2] for p in pictures(items)]
    assert shapes == [(128, widths[0])] * 12 + [(160, widths[1])] * 12
    changed = pictures(items)[12]
    assert changed.jump == f"resolution changed from {widths[0]}x128 to {widths[1]}x160"
    assert np.diff([p.time_s for p in pictures(items)]).min() > 0


def test_two_recordings_joined_are_one_time_line_with_a_break(tmp_path: Path) -> None:
    part = tmp_path / "a.ts"
    write_video(part, frames=24, fps=12)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(part.read_bytes() * 2)
    _, items = watch(joined)
    assert numbers(items) == [*range(24), *range(24)]
    assert sum(bool(p.jump) for p in pictures(items)) == 1
    np.testing.assert_allclose(np.diff([p.time_s for p in pictures(items)]), 1 / 12, atol=0.002)


def test_stopped_is_heard_between_pictures(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    write_video(path, frames=60)
    source = VideoSource(str(path))
    source.open()
    seen: list[Picture | Corrupt] = []
    for item in source.frames(lambda: len(seen) >= 5):
        seen.append(item)
    source.close()
    source.close()
    assert 5 <= len(seen) <= 12  # what was decoded already may still come


@pytest.mark.parametrize(("skip", "expected"), [("nonkey", [0, 12, 24, 36]), ("none", list(range(48)))])
def test_skip_leaves_out_what_need_not_be_decoded(tmp_path: Path, skip: str, expected: list[int]) -> None:
    path = tmp_path / "clip.mp4"
    write_video(path, frames=48, gop=12)
    _, items = watch(path, VideoOptions(skip=skip))  # type: ignore[arg-type]
    assert numbers(items) == expected
    np.testing.assert_allclose([p.time_s for p in pictures(items)], np.array(expected) / 12, atol=1e-3)


def test_skipping_unreferenced_pictures_keeps_the_others_whole(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    write_video(path, frames=48, gop=12, b_frames=2)
    _, items = watch(path, VideoOptions(skip="nonref"))
    seen = numbers(items)
    assert 10 < len(seen) < 40
    assert seen == sorted(set(seen))


def test_the_tap_gets_packets_that_can_be_written_without_encoding(tmp_path: Path) -> None:
    path, copy = tmp_path / "clip.mp4", tmp_path / "copy.mkv"
    write_video(path, frames=24, b_frames=2)
    output = av.open(str(copy), "w")
    streams: list[av.VideoStream] = []

    def tap(packet: av.Packet, stream: av.VideoStream, wall_s: float | None) -> None:
        assert wall_s is None, "this recording says nothing of it"
        if not streams:
            streams.append(output.add_stream_from_template(stream))
        packet.stream = streams[0]
        output.mux(packet)

    source = VideoSource(str(path), tap=tap)
    source.open()
    assert numbers(list(source.frames(lambda: False))) == list(range(24))
    output.close()
    source.close()
    _, items = watch(copy)
    assert numbers(items) == list(range(24))


@pytest.mark.parametrize(
    ("ratio", "rotation", "size"),
    [
        (Fraction(4, 3), 0, (256, 128)), (Fraction(1, 2), 0, (192, 256)), (Fraction(4, 3), 90, (192, 171)),
        (Fraction(99, 100), 0, (192, 128)), (Fraction(50), 0, (192, 128)),
    ],
)  # fmt: skip
def test_pixels_that_are_not_square_are_made_so_and_it_is_said_once(
    ratio: Fraction, rotation: int, size: tuple[int, int], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "streampose")
    path = tmp_path / "wide.mp4"
    write_video(path, frames=6, pixel_ratio=ratio, rotation=rotation)
    for _ in range(2):
        info, items = watch(path)
    (first, *others) = pictures(items)
    assert (info.width, info.height) == first.image.shape[1::-1] == size
    assert len(others) == 5
    block = np.argwhere((first.image[..., 2] > 180) & (first.image[..., 0] < 90))  # red, 24 pixels wide and high
    height, width = np.ptp(block, axis=0) + 1
    assert (width, height) == pytest.approx((24 * size[0] / 192, 24 * size[1] / 128), abs=3)  # edges blend
    assert len([line for line in caplog.messages if "its pixels are" in line]) == (size != (192, 128))


def test_what_is_missing_in_a_transport_stream_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole, holed = tmp_path / "whole.ts", tmp_path / "holed.ts"
    write_video(whole, frames=24, fps=12)
    data = whole.read_bytes()
    packets = [data[start : start + 188] for start in range(0, len(data), 188)]
    holed.write_bytes(b"".join(packet for number, packet in enumerate(packets) if number not in (12, 20)))
    watch(whole)
    assert caplog.messages == []
    for _ in range(2):
        watch(holed)
    (line,) = caplog.messages
    assert line.startswith(f"{holed}: parts of it are missing")


def test_a_second_video_in_a_container_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "streampose")
    path = tmp_path / "both.mkv"
    with av.open(str(path), "w") as both:
        inputs = []
        for name, size in (("large", (192, 128)), ("small", (160, 112))):
            write_video(tmp_path / f"{name}.mkv", frames=12, size=size)
            container = av.open(str(tmp_path / f"{name}.mkv"))
            inputs.append((container, both.add_stream_from_template(container.streams.video[0])))
        for container, stream in inputs:
            for packet in container.demux(video=0):
                if packet.dts is not None:
                    packet.stream = stream
                    both.mux(packet)
            container.close()
    for _ in range(2):
        _, items = watch(path)
    assert numbers(items) == list(range(12))
    assert [line for line in caplog.messages if "videos" in line] == [
        f"{path}: 2 videos in it; number 1 is taken, 192x128"
    ]


@pytest.mark.parametrize("device", ["auto", "cuda", "vaapi", "qsv", "drm", "amf", "videotoolbox", "vulkan", "nonsense"])
def test_hardware_that_is_not_here_is_said_once_and_decoded_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    """Also where it is opened again, as a camera is; where a machine has the device, nothing is said and it decodes."""
    monkeypatch.setattr(said, "_said", set())
    caplog.set_level(logging.INFO, "streampose")
    path = tmp_path / "clip.mp4"
    write_video(path, frames=12)
    for _ in range(3):
        _, items = watch(path, VideoOptions(hwaccel=device))
        assert numbers(items) == list(range(12))
    lines = [r.getMessage() for r in caplog.records if "decoding in software" in r.getMessage()]
    some = any(libav._device_present(known) for known in ("cuda", "vaapi"))  # those that have a device file to look for
    assert len(lines) == 1 or (some and not lines), lines
    assert all("\n" not in line for line in lines)


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_threads_change_nothing(tmp_path: Path, threads: int) -> None:
    path = tmp_path / "clip.mp4"
    written = write_video(path, pts=constant_pts(40, 25), b_frames=2)
    _, items = watch(path, VideoOptions(threads=threads))
    assert numbers(items) == list(range(40))
    np.testing.assert_allclose([p.time_s for p in pictures(items)], np.array(written) / 90_000, atol=1e-4)


def test_the_dead_option_is_refused() -> None:
    with pytest.raises(PermanentSourceError, match="stimeout does nothing"):
        VideoOptions(libav={"stimeout": "3000000"})


def test_open_files_are_closed(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    write_video(path, frames=12)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        watch(path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize("seed", range(6))
def test_flipped_bits_cost_pictures_not_the_run(tmp_path: Path, seed: int) -> None:
    whole = tmp_path / "whole.ts"
    write_video(whole, frames=60, b_frames=seed % 3, codec="hevc" if seed % 2 else "h264")
    _, items = watch(damage(whole, tmp_path / "damaged.ts", seed=seed, flips=25))
    assert len(pictures(items)) > 15
    assert np.diff([p.time_s for p in pictures(items)]).min() > 0
