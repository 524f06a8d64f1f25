"""The source stream on disk: the same pictures at the same distances, cut at key frames."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampose.errors import SinkError
from streampose.sinks.paths import source_template
from streampose.sinks.remux import Remuxer, dts_before
from streampose.sinks.video_file import OpenVideo, VideoFile


def make_video(path: Path, codec: str = "libx264", frames: int = 120, noise: bool = False, **options: str) -> None:
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options={"g": "25", **options})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for index in range(frames):
            image = np.full((64, 96, 3), index * 2 % 256, np.uint8)
            if noise:
                image = rng.integers(0, 255, image.shape).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="bgr24")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        for packet in stream.encode(None):
            if frames == 1:  # x265 leaves the DTS of a lone picture unset, one in a hundred is beyond the PTS
                packet.dts = packet.pts
            container.mux(packet)


def read(path: Path) -> tuple[list[float], list[np.ndarray]]:
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    return [float(f.pts * f.time_base) for f in frames], [f.to_ndarray() for f in frames]


def feed(source: Path, remuxer: Remuxer, wall_s: float = 1.8e9, start: int = 0) -> int:
    """Feed the packets from the `start`-th on and decode the very same packets, as a source does."""
    decoded = 0
    with av.open(str(source)) as container:
        stream = container.streams.video[0]
        for number, packet in enumerate(container.demux(stream)):
            if number >= start:
                wall = wall_s + float((packet.pts or 0) * stream.time_base)
                remuxer.write(packet, stream, wall)
            decoded += len(packet.decode())
    return decoded


@pytest.mark.parametrize(
    ("codec", "options"),
    [
        ("libx264", {}),
        ("libx264", {"bf": "3", "preset": "medium"}),
        ("libx265", {"x265-params": "log-level=none"}),
        ("mpeg4", {}),
    ],
)
@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_pictures_and_times_are_those_of_the_source(
    codec: str, options: dict[str, str], ending: str, tmp_path: Path
) -> None:
    source = tmp_path / "source.mp4"
    make_video(source, codec, **options)
    remuxer = Remuxer(tmp_path / f"{{camera}}.{ending}", "gate")
    assert feed(source, remuxer) == 120, "the tap must leave the packets as they are"
    remuxer.close()
    remuxer.close()
    assert remuxer.error is None
    assert remuxer.outputs() == (str(tmp_path / f"gate.{ending}"),)
    (times, pictures), (copied_times, copied) = read(source), read(tmp_path / f"gate.{ending}")
    assert len(copied) == 120
    assert all((a == b).all() for a, b in zip(pictures, copied, strict=True))
    assert np.abs(np.diff(times) - np.diff(copied_times)).max() < 2e-3


def packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.size]


@pytest.mark.parametrize("frames", [1, 2, 60])
@pytest.mark.parametrize("codec", ["libx264", "libx265"])
@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_a_matroska_source_with_b_frames_loses_no_packet(frames: int, codec: str, ending: str, tmp_path: Path) -> None:
    """Its first two packets have no DTS; of a clip of two frames none has."""
    source = tmp_path / "source.mkv"
    make_video(source, codec, frames, **({"x265-params": "log-level=none"} if codec == "libx265" else {"bf": "3"}))
    with av.open(str(source)) as container:
        undecided = [packet.dts is None for packet in container.demux(video=0) if packet.size]
    assert undecided == [True, True, *[False] * frames][:frames]
    remuxer = Remuxer(tmp_path / f"out.{ending}", "gate")
    assert feed(source, remuxer) == frames
    remuxer.close()
    assert remuxer.error is None
    assert remuxer.outputs() == (str(tmp_path / f"out.{ending}"),)
    assert len(packets(tmp_path / f"out.{ending}")) == len(packets(source)) == frames
    (times, pictures), (copied_times, copied) = read(source), read(tmp_path / f"out.{ending}")
    assert all((a == b).all() for a, b in zip(pictures, copied, strict=True))
    assert np.diff(copied_times) == pytest.approx(np.diff(times), abs=2e-3)


@given(
    st.one_of(st.none(), st.integers(-100, 100)),
    st.lists(st.integers(-100, 100), min_size=1, max_size=17),
    st.integers(0, 50),
)
def test_times_that_were_missing_grow_up_to_the_first_known_and_are_never_after_their_pictures(
    known: int | None, pts: list[int], duration: int
) -> None:
    found = dts_before(known, pts, duration)
    assert all(a < b for a, b in pairwise([*found, *([] if known is None else [known])]))
    assert all(dts <= shown for dts, shown in zip(found, pts, strict=True))


def test_a_stream_that_never_has_dts_is_written_by_its_pts(tmp_path: Path) -> None:
    make_video(tmp_path / "source.mp4", bf="0")
    remuxer = Remuxer(tmp_path / "out.mp4", "gate")
    with av.open(str(tmp_path / "source.mp4")) as container:
        for packet in container.demux(video=0):
            packet.dts = None
            remuxer.write(packet, container.streams.video[0], 1.8e9)
    remuxer.close()
    (times, pictures), (copied_times, copied) = read(tmp_path / "source.mp4"), read(tmp_path / "out.mp4")
    assert all((a == b).all() for a, b in zip(pictures, copied, strict=True))
    assert np.diff(copied_times) == pytest.approx(np.diff(times), abs=1e-3)


@pytest.mark.parametrize(
    ("set_by_s", "back_after", "files"),
    [
        pytest.param(-(2**33) / 90_000, 1000, 2, id="the counter of MPEG-TS wraps"),
        pytest.param(-2.0, 1000, 2, id="set back"),
        pytest.param(-0.1, 1000, 1, id="a stutter"),
        pytest.param(40_000.0, 1, 2, id="one absurd stamp"),
        pytest.param(40_000.0, 1000, 2, id="set forward"),
    ],
)
def test_a_clock_that_is_set_costs_no_packet(tmp_path: Path, set_by_s: float, back_after: int, files: int) -> None:
    """In the middle of a group of pictures: those that follow are decoded from those that are in the file."""
    source = tmp_path / "source.ts"
    make_video(source, frames=120, g="50", preset="ultrafast", sc_threshold="0")
    remuxer = Remuxer(tmp_path / "gate.mp4", "gate")
    with av.open(str(source)) as container:
        stream = container.streams.video[0]
        for number, packet in enumerate(p for p in container.demux(stream) if p.size):
            if 60 <= number < 60 + back_after:
                packet.pts += int(set_by_s * 90_000)
                packet.dts += int(set_by_s * 90_000)
            remuxer.write(packet, stream, 1.8e9 + number / 25)
    remuxer.close()
    assert remuxer.error is None
    written = [read(Path(path)) for path in remuxer.outputs()]
    assert [len(times) for times, _ in written] == [[100, 20], [120]][2 - files]
    np.testing.assert_array_equal(np.concatenate([images for _, images in written]), read(source)[1])
    steps = np.concatenate([np.diff(times) for times, _ in written])
    assert steps.min() > 0
    assert steps.max() < 0.2


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
@pytest.mark.parametrize(
    ("off", "jump_s"),
    [
        pytest.param(lambda k: -(k % 2), 0.0, id="each stamp twice"),
        pytest.param(lambda k: -(k % 5 == 4), 0.0, id="one of five repeats the one before"),
        pytest.param(lambda k: -2 * (k % 3 == 2), 0.0, id="every third is late"),
        pytest.param(lambda k: 22 * (k == 60), 0.0, id="one is ahead by less than a second"),
        pytest.param(lambda k: 45_000 * (k == 60), 1800.0, id="one is ahead by a pause"),
    ],
)
def test_stamps_that_stutter_or_jump_lengthen_nothing(
    off: Callable[[int], int], jump_s: float, ending: str, tmp_path: Path
) -> None:
    source = tmp_path / "source.ts"
    make_video(source, frames=120, g="50", bf="0", sc_threshold="0")
    remuxer = Remuxer(tmp_path / f"gate.{ending}", "gate")
    with av.open(str(source)) as container:
        stream = container.streams.video[0]
        for number, packet in enumerate(p for p in container.demux(stream) if p.size):
            packet.pts = packet.dts = (number + off(number)) * 3600
            remuxer.write(packet, stream, 1.8e9 + number / 25)
    remuxer.close()
    assert remuxer.error is None
    written = [read(Path(path)) for path in remuxer.outputs()]
    np.testing.assert_array_equal(np.concatenate([images for _, images in written]), read(source)[1])
    seen_s = sum(times[-1] - times[0] for times, _ in written) + 0.04 * (len(written) - 1)
    assert seen_s == pytest.approx(119 * 0.04 + jump_s, abs=0.05)


@pytest.mark.parametrize("at", range(60, 65))
def test_where_counters_wrap_among_b_frames_each_picture_keeps_its_time(tmp_path: Path, at: int) -> None:
    """The PTS wraps some packets before the DTS. No packet says how long it lasts."""
    source = tmp_path / "source.ts"
    make_video(source, frames=120, g="50", bf="2", **{"b-adapt": "0", "sc_threshold": "0"})
    with av.open(str(source)) as container:
        limit = [packet.dts for packet in container.demux(video=0) if packet.size][at]
    remuxer = Remuxer(tmp_path / "gate.mp4", "gate")
    with av.open(str(source)) as container:
        stream = container.streams.video[0]
        for number, packet in enumerate(p for p in container.demux(stream) if p.size):
            packet.pts, packet.dts = (stamp - (2**33 if stamp >= limit else 0) for stamp in (packet.pts, packet.dts))
            packet.duration = 0
            remuxer.write(packet, stream, 1.8e9 + number / 25)
    remuxer.close()
    written = [read(Path(path)) for path in remuxer.outputs()]
    np.testing.assert_array_equal(np.concatenate([images for _, images in written]), read(source)[1])
    for times, _ in written:
        np.testing.assert_allclose(np.diff(times), 0.04, atol=1e-4)


def test_files_are_cut_at_key_frames_by_the_wall_clock(tmp_path: Path) -> None:
    source = tmp_path / "source.mp4"
    make_video(source, bf="2")
    remuxer = Remuxer(tmp_path / "{camera}.mp4", "gate", segment_s=2)
    feed(source, remuxer, wall_s=1_800_000_001.0)
    remuxer.close()
    names = [Path(path).name for path in remuxer.outputs()]
    assert names == ["08-00-00.mp4", "08-00-02.mp4", "08-00-04.mp4"]
    parts = [read(Path(path))[1] for path in remuxer.outputs()]
    assert [len(part) for part in parts] == [25, 50, 45]
    whole = read(source)[1]
    assert all((a == b).all() for a, b in zip(whole, [picture for part in parts for picture in part], strict=True))


def test_nothing_is_written_before_the_first_key_frame(tmp_path: Path) -> None:
    make_video(tmp_path / "source.mp4")
    remuxer = Remuxer(tmp_path / "out.mp4", "gate")
    feed(tmp_path / "source.mp4", remuxer, start=3)
    remuxer.close()
    assert len(read(tmp_path / "out.mp4")[1]) == 95


def test_a_reconnect_begins_another_file(tmp_path: Path) -> None:
    make_video(tmp_path / "source.mp4", frames=50)
    remuxer = Remuxer(tmp_path / "out.mp4", "gate")
    feed(tmp_path / "source.mp4", remuxer)
    feed(tmp_path / "source.mp4", remuxer)
    remuxer.close()
    assert remuxer.outputs() == (str(tmp_path / "out.mp4"), str(tmp_path / "out-2.mp4"))
    assert [len(read(Path(path))[1]) for path in remuxer.outputs()] == [50, 50]


def test_a_later_file_is_not_written_over_the_one_that_is_read(tmp_path: Path) -> None:
    source = tmp_path / "out-2.mp4"
    make_video(source, frames=50)
    before = source.read_bytes()
    remuxer = Remuxer(tmp_path / "out.mp4", "gate", sources=[source])
    feed(source, remuxer)
    feed(source, remuxer)
    remuxer.close()
    assert source.read_bytes() == before
    assert "this is what is read" in str(remuxer.error)
    assert len(read(tmp_path / "out.mp4")[1]) == 50, "what was written before is whole"


def test_a_full_disk_never_costs_the_camera(tmp_path: Path) -> None:
    make_video(tmp_path / "source.mp4", frames=400, noise=True)
    code = f"""
import resource, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from test_remux import feed
from streampose.sinks import remux
from streampose.sinks.paths import source_template
from streampose.sinks.remux import Remuxer
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
remuxer = Remuxer({str(tmp_path / "out.mp4")!r}, "gate")
print(feed(Path({str(tmp_path / "source.mp4")!r}), remuxer))
remuxer.close()
print(remuxer.error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    count, error = done.stdout.splitlines()
    assert count == "400"
    assert error.startswith(f"{tmp_path / 'out.mp4'}: cannot be written: the file reached the largest size")
    assert len(read(tmp_path / "out.mp4")[1]) > 20


def test_a_codec_that_does_not_fit_is_said(tmp_path: Path) -> None:
    make_video(tmp_path / "source.webm", "libvpx")
    remuxer = Remuxer(tmp_path / "out.mp4", "gate")
    feed(tmp_path / "source.webm", remuxer)
    assert str(remuxer.error) == f"{tmp_path / 'out.mp4'}: vp8 does not fit into .mp4; name a .mkv file"
    remuxer = Remuxer(tmp_path / "out.mkv", "gate")
    feed(tmp_path / "source.webm", remuxer)
    remuxer.close()
    assert remuxer.error is None
    assert len(read(tmp_path / "out.mkv")[1]) == 120


def test_a_codec_that_fits_nowhere_is_said_without_the_ending_it_has(tmp_path: Path) -> None:
    pictures = [PIL.Image.new("RGB", (64, 48), (50 * number, 0, 0)) for number in range(3)]
    pictures[0].save(tmp_path / "moving.gif", save_all=True, append_images=pictures[1:], duration=40)
    remuxer = Remuxer(tmp_path / "out.mkv", "gate")
    feed(tmp_path / "moving.gif", remuxer)
    assert str(remuxer.error) == f"{tmp_path / 'out.mkv'}: gif does not fit into .mkv; give `mode: annotated`"


def test_an_unwritable_path_is_kept_as_an_error(tmp_path: Path) -> None:
    make_video(tmp_path / "source.mp4", frames=30)
    (tmp_path / "x").write_text("")
    remuxer = Remuxer(tmp_path / "x" / "out.mp4", "gate")
    assert feed(tmp_path / "source.mp4", remuxer) == 30
    assert remuxer.error is not None
    assert "is a file, not a folder" in str(remuxer.error)


def test_a_reader_that_is_given_up_while_it_closes_a_file_begins_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_video(tmp_path / "source.mp4", frames=50)
    gone: list[Path] = []
    remuxer = Remuxer(tmp_path / "out.mp4", "gate", given_up=lambda: bool(gone))
    feed(tmp_path / "source.mp4", remuxer)
    close = OpenVideo.close

    def late(file: OpenVideo) -> None:
        close(file)
        gone.append(file.path)

    monkeypatch.setattr(OpenVideo, "close", late)
    assert feed(tmp_path / "source.mp4", remuxer) == 50
    assert gone == [tmp_path / "out.mp4"]
    assert remuxer.outputs() == (str(tmp_path / "out.mp4"),)
    assert not (tmp_path / "out-2.mp4").exists()
    gone.clear()
    feed(tmp_path / "source.mp4", remuxer)
    remuxer.close()
    assert len(read(tmp_path / "out-2.mp4")[1]) == 50


def test_a_reader_that_is_stuck_in_its_file_holds_up_nobody_and_recording_goes_on_when_it_is_back(
    tmp_path: Path,
) -> None:
    """A pipe that nobody reads stands for a disk that is gone: who opens it comes back only when somebody does."""
    source = tmp_path / "source.mp4"
    make_video(source, frames=50)
    os.mkfifo(tmp_path / "out.mkv")
    remuxer = Remuxer(tmp_path / "out.mkv", "gate")
    with ThreadPoolExecutor() as pool:
        stuck = pool.submit(feed, source, remuxer)
        while not remuxer._lock.locked():
            assert not stuck.done()
        assert feed(source, remuxer) == 50, "its successor reads on"
        remuxer.close()
        assert remuxer.outputs() == ()
        disk = os.open(tmp_path / "out.mkv", os.O_RDONLY | os.O_NONBLOCK)
        assert stuck.result() == 50
    feed(source, remuxer)
    remuxer.close()
    os.close(disk)
    assert remuxer.error is None
    assert remuxer.outputs() == (str(tmp_path / "out.mkv"), str(tmp_path / "out-2.mkv"))
    assert len(read(tmp_path / "out-2.mkv")[1]) == 50


def test_the_source_has_a_name_of_its_own_beside_the_annotated_one() -> None:
    assert source_template("out/{camera}.mp4") == "out/{camera}.source.mp4"


@pytest.mark.parametrize("mode", ["annotated", "source"])
def test_a_disk_that_goes_away_ends_the_recording_alone(
    mode: str, short_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the system then says of the file's own descriptor is one line, nothing more."""

    def gone(_: int) -> os.stat_result:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    said = r"gate\.mp4: cannot be written: Stale file handle"
    if mode == "annotated":
        video = VideoFile(tmp_path / "gate.mp4", (64, 48), start_s=0.0, metadata={})
        video.add(np.zeros((48, 64, 3), np.uint8), 0.0)
        monkeypatch.setattr("streampose.sinks.video_file.os", SimpleNamespace(fstat=gone))
        with pytest.raises(SinkError, match=said):
            video.close()
        video.close()
    else:
        tap = Remuxer(tmp_path / "gate.mp4", "gate")
        with av.open(str(short_clip)) as container:
            for packet in container.demux(video=0):
                tap.write(packet, container.streams.video[0])
                monkeypatch.setattr("streampose.sinks.video_file.os", SimpleNamespace(fstat=gone))
        assert re.search(said, str(tap.error))
        tap.close()
        assert tap.closed()


def with_edit_list(path: Path, into: Path, begin: int) -> Path:
    """An MP4 of one track with its first `begin` ticks of the media hidden by the edit list it has."""
    data = path.read_bytes()
    place = data.index(b"elst") + 12  # version and flags, the number of entries
    assert data[place - 8 : place] == bytes((0, 0, 0, 0, 0, 0, 0, 1))
    into.write_bytes(data[: place + 4] + begin.to_bytes(4, "big") + data[place + 8 :])
    return into


def test_what_an_edit_list_hides_is_recorded_since_others_need_it_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_video(tmp_path / "whole.mp4", bf="2")
    with av.open(str(tmp_path / "whole.mp4")) as container:
        per_frame = round(1 / 25 / container.streams.video[0].time_base)
    source = with_edit_list(tmp_path / "whole.mp4", tmp_path / "source.mp4", 12 * per_frame)
    shown = read(source)[1]
    assert 100 < len(shown) < 120
    remuxer = Remuxer(tmp_path / "out.mp4", "gate")
    feed(source, remuxer)
    remuxer.close()
    assert remuxer.error is None
    copied = read(tmp_path / "out.mp4")[1]
    assert len(copied) == 120
    assert all((a == b).all() for a, b in zip(shown, copied[-len(shown) :], strict=True))
    assert [record.message for record in caplog.records] == [
        "the edit list of gate hides pictures that others are decoded from; its recorded stream shows them, too"
    ]
