"""Recorded video: times to the tick, files that play after a kill or a full disk, rolling with size and clock."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import av
import numpy as np
import pytest
from made_results import make_info, make_person, make_result

from streampose.errors import ConfigError, SinkError
from streampose.messages import Break, CameraState, Counts, End, SourceState
from streampose.sinks.draw import DrawOptions, DrawSkeleton
from streampose.sinks.record import RecordSink, fit
from streampose.sinks.video_file import VideoFile, describe

HERE = str(Path(__file__).parent)


def times_of(path: Path) -> list[float]:
    """Presentation times in seconds, by a reader that decodes every picture."""
    with av.open(str(path)) as container:
        return [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]


def comment_of(path: Path) -> dict[str, object]:
    with av.open(str(path)) as container:
        tags = {key.lower(): value for key, value in container.metadata.items()}
    return dict(json.loads(tags["comment"]))


def write(path: Path, times: list[float], skeleton: DrawSkeleton, **options: object) -> RecordSink:
    sink = RecordSink(path, "gate", skeleton, **options)  # type: ignore[arg-type]
    sink.write(Break("gate", 0, make_info()))
    for index, time_s in enumerate(times):
        sink.write(make_result(index, time_s, [make_person(1)], wall_s=1.79e9 + time_s))
    sink.write(End("gate", Counts(decoded=len(times))))
    sink.close()
    return sink


@pytest.mark.parametrize(("ending", "tolerance_s"), [("mp4", 1e-9), ("mkv", 5.1e-4)])
def test_every_frame_keeps_its_time_also_over_long_gaps(
    ending: str, tolerance_s: float, tmp_path: Path, skeleton: DrawSkeleton
) -> None:
    rng = np.random.default_rng(3)
    steps = rng.choice([1 / 60, 1 / 30, 0.125, 1.7, 4000.0], 120, p=[0.3, 0.4, 0.2, 0.08, 0.02])
    times = [round(0.4 + float(t) * 90000) / 90000 for t in np.cumsum(steps)]
    path = tmp_path / f"gate.{ending}"
    sink = write(path, times, skeleton)
    assert sink.outputs() == (str(path),)
    assert np.abs(np.array(times_of(path)) - (np.array(times) - times[0])).max() <= tolerance_s
    note = comment_of(path)
    assert note["camera"] == "gate"
    assert note["start_time"] == pytest.approx(times[0], abs=1e-6)
    assert note["start_wall"] == pytest.approx(1.79e9 + times[0], abs=1e-5)


@pytest.mark.parametrize(("over_s", "lengths"), [(-1.0, [104]), (1.0, [54, 50])])
def test_times_are_kept_across_the_longest_pause_that_a_file_holds_and_a_longer_one_begins_a_file(
    over_s: float, lengths: list[int], tmp_path: Path, skeleton: DrawSkeleton
) -> None:
    """A step of 2^31 ticks of 1/90000 s, 23,861 s, spoils the times of all pictures behind it in an MP4."""
    pause_s = 2**31 / 90000 - 3600 + over_s
    times = [4.0 * index for index in range(4)] + [12.0 + index / 25 for index in range(1, 51)]
    times += [times[-1] + pause_s + index / 25 for index in range(50)]
    sink = write(tmp_path / "gate.mp4", times, skeleton)
    assert [len(times_of(Path(path))) for path in sink.outputs()] == lengths
    found = [
        t + float(str(comment_of(Path(path))["start_time"])) for path in sink.outputs() for t in times_of(Path(path))
    ]
    assert np.abs(np.array(found) - times).max() < 2e-5


def test_the_picture_and_its_colours_survive(tmp_path: Path, skeleton: DrawSkeleton) -> None:
    image = np.zeros((120, 160, 3), np.uint8)
    image[:60, :80], image[:60, 80:], image[60:, :80], image[60:, 80:] = (0, 0, 200), (0, 200, 0), (200, 0, 0), 128
    sink = RecordSink(tmp_path / "a.mp4", "a", skeleton, crf=10)
    for index in range(5):
        sink.write(make_result(index, image=image))
    sink.close()
    with av.open(str(tmp_path / "a.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt, context.color_range, context.colorspace) == ("h264", "yuv420p", 1, 6)
        assert not container.streams.audio
        out = [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]
    for y, x in ((30, 40), (30, 120), (90, 40), (90, 120)):
        assert np.abs(out[-1][y, x].astype(int) - image[y, x]).max() <= 8


def test_people_are_on_it(tmp_path: Path, skeleton: DrawSkeleton) -> None:
    def middle(options: DrawOptions) -> np.ndarray:
        sink = RecordSink(tmp_path / "a.mp4", "a", skeleton, options)
        for index in range(3):
            sink.write(make_result(index, people=[make_person(box=(20, 5, 90, 115))]))
        sink.close()
        with av.open(str(tmp_path / "a.mp4")) as container:
            return next(container.decode(video=0)).to_ndarray(format="bgr24")

    assert middle(DrawOptions()).std() > 10
    assert middle(DrawOptions(background="black"))[:, 100:].max() < 8


@pytest.mark.parametrize("size", [(161, 121), (161, 120), (33, 77)])
def test_odd_sizes_become_even_without_losing_a_pixel(
    size: tuple[int, int], tmp_path: Path, skeleton: DrawSkeleton
) -> None:
    sink = RecordSink(tmp_path / "a.mp4", "a", skeleton)
    for index in range(3):
        sink.write(make_result(index, size=size))
    sink.close()
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height) == (size[0] + size[0] % 2, size[1] + size[1] % 2)


@pytest.mark.parametrize("size", [(96, 64), (96, 66), (97, 65), (1, 1)])
def test_the_picture_that_is_read_back_is_the_one_that_was_written(size: tuple[int, int], tmp_path: Path) -> None:
    width, height = size
    across, down = np.linspace(40, 215, width)[None, :, None], np.linspace(-20, 20, height)[:, None, None]
    images = [(across + down + np.array([0, 15, -15]) + 4 * index).astype(np.uint8) for index in range(3)]
    file = VideoFile(tmp_path / "a.mp4", size, start_s=0.0, metadata={}, fps=10, crf=4)
    for index, image in enumerate(images):
        file.add(image, index / 10)
    file.close()
    with av.open(str(tmp_path / "a.mp4")) as container:
        found = [frame.to_ndarray(format="bgr24")[:height, :width] for frame in container.decode(video=0)]
    assert len(found) == len(images)
    for image, back in zip(images, found, strict=True):
        assert np.abs(back.astype(int) - image).mean() < 5


def test_another_size_begins_another_file(tmp_path: Path, skeleton: DrawSkeleton) -> None:
    sink = RecordSink(tmp_path / "{camera}.mp4", "gate", skeleton)
    for index in range(20):
        size = (160, 120) if index < 8 else (96, 64)
        sink.write(make_result(index, size=size, segment=int(index >= 8)))
    sink.close()
    first, second = tmp_path / "gate.mp4", tmp_path / "gate-2.mp4"
    assert sink.outputs() == (str(first), str(second))
    assert (len(times_of(first)), len(times_of(second))) == (8, 12)
    assert comment_of(second)["start_time"] == pytest.approx(8 / 25)


def test_a_later_file_is_not_written_over_the_one_that_is_read(tmp_path: Path, skeleton: DrawSkeleton) -> None:
    source = tmp_path / "gate-2.mp4"
    source.write_bytes(b"a recording")
    sink = RecordSink(tmp_path / "gate.mp4", "gate", skeleton, sources=[tmp_path / "other.mp4", source])
    sink.write(make_result(0))
    sink.write(Break("gate", 1, make_info()))
    with pytest.raises(SinkError, match=r"gate-2\.mp4: this is what is read"):
        sink.write(make_result(1, segment=1))
    assert source.read_bytes() == b"a recording"


@pytest.mark.parametrize("segment_s", [None, 3600.0])
def test_every_break_begins_another_file(segment_s: float | None, tmp_path: Path, skeleton: DrawSkeleton) -> None:
    """Also of pictures of the same size: a reconnect, a clock that was set."""
    sink = RecordSink(tmp_path / "{camera}.mp4", "gate", skeleton, segment_s=segment_s, clock=lambda: 1.8e9)
    for index in range(12):
        if index % 4 == 0:
            sink.write(Break("gate", index // 4, make_info(), "rtsp://cam ended the stream" if index else "start"))
        sink.write(make_result(index, segment=index // 4))
    sink.close()
    paths = [Path(path) for path in sink.outputs()]
    plain = ["gate.mp4", "gate-2.mp4", "gate-3.mp4"]
    assert [path.name for path in paths] == (
        plain if segment_s is None else ["08-00-00.mp4", "08-00-00-2.mp4", "08-00-00-3.mp4"]
    )
    assert [len(times_of(path)) for path in paths] == [4, 4, 4]
    assert [comment_of(path)["start_time"] for path in paths] == pytest.approx([0.0, 4 / 25, 8 / 25])


def test_a_chosen_size_is_fitted_never_stretched(tmp_path: Path, skeleton: DrawSkeleton) -> None:
    sink = RecordSink(tmp_path / "a.mp4", "a", skeleton, size=(64, 64))
    for index in range(3):
        sink.write(make_result(index, size=(160, 80) if index else (80, 160)))
    sink.close()
    assert sink.outputs() == (str(tmp_path / "a.mp4"), str(tmp_path / "a-2.mp4"))
    white = np.full((80, 160, 3), 255, np.uint8)
    out = fit(white, (64, 64))
    assert out.shape == (64, 64, 3)
    rows, columns = (np.flatnonzero((out > 128).any(axis=(axis, 2))) for axis in (1, 0))
    assert (len(rows), len(columns)) == (32, 64)
    assert rows[0] == 16


def test_files_roll_at_multiples_of_wall_time(tmp_path: Path, skeleton: DrawSkeleton) -> None:
    start_s = datetime.fromisoformat("2026-11-25T02:29:58Z").timestamp()
    sink = RecordSink(tmp_path / "{camera}.mp4", "gate", skeleton, segment_s=600)
    for index in range(100):
        jitter_s = 0.03 * (-1) ** index  # a clock that is corrected back and forth at the boundary
        sink.write(make_result(index, index / 25, wall_s=start_s + index / 25 + jitter_s))
    sink.close()
    folder = tmp_path / "gate" / "2026-11-25"
    assert sink.outputs() == (str(folder / "02-20-00.mp4"), str(folder / "02-30-00.mp4"))
    counts = [len(times_of(Path(path))) for path in sink.outputs()]
    assert sum(counts) == 100
    assert abs(counts[0] - 50) <= 1


def test_a_kill_leaves_a_file_that_plays(tmp_path: Path) -> None:
    for ending in ("mp4", "mkv"):
        path = tmp_path / f"gate.{ending}"
        code = f"""
import sys
sys.path.insert(0, {HERE!r})
from made_results import make_result
from streampose.pose.skeleton import load_skeleton
from streampose.sinks.draw import DrawSkeleton
from streampose.sinks.record import RecordSink
coco = load_skeleton("coco17")
sink = RecordSink({str(path)!r}, "gate", DrawSkeleton(coco.sides, coco.edges))
for index in range(10**9):
    sink.write(make_result(index))
    if index == 250:
        print("ready", flush=True)
        sys.stdin.readline()
"""
        process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        process.stdin.close()
        times = times_of(path)
        # 250 frames are 10 s; at most one fragment of a second and the encoder's lookahead are lost.
        assert len(times) > 250 - 25 - 12 - 3, ending
        assert np.abs(np.diff(times) - 1 / 25).max() < 1e-3


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
@pytest.mark.parametrize("state", ["reconnecting", "paused"])
def test_of_a_live_camera_with_slow_results_a_kill_costs_little_and_nothing_while_it_is_away(
    ending: str, state: SourceState, tmp_path: Path, skeleton: DrawSkeleton
) -> None:
    """Two results a second of a camera that says 25: a second or so, the picture behind it, one in the encoder."""
    path, killed = tmp_path / f"gate.{ending}", tmp_path / f"killed.{ending}"
    sink = RecordSink(path, "gate", skeleton)
    sink.write(Break("gate", 0, make_info(kind="stream", live=True)))
    for index in range(20):
        sink.write(make_result(index, index / 2))
    shutil.copyfile(path, killed)
    assert len(times_of(killed)) >= 20 - 5
    sink.write(CameraState("gate", state, "gone", 10.0))
    assert len(times_of(path)) == 20
    sink.write(Break("gate", 1, make_info(kind="stream", live=True)))
    sink.write(make_result(20, 12.0, segment=1))
    sink.close()
    assert sink.outputs() == (str(path), str(tmp_path / f"gate-2.{ending}"))


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_a_full_disk_is_one_line_and_what_was_written_plays(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"gate.{ending}"
    code = f"""
import resource, sys
sys.path.insert(0, {HERE!r})
import numpy as np
from made_results import make_result
from streampose.errors import SinkError
from streampose.pose.skeleton import load_skeleton
from streampose.sinks.draw import DrawSkeleton
from streampose.sinks.record import RecordSink
resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, 1_500_000))
coco = load_skeleton("coco17")
sink = RecordSink({str(path)!r}, "gate", DrawSkeleton(coco.sides, coco.edges))
rng = np.random.default_rng(0)
try:
    for index in range(2000):
        sink.write(make_result(index, image=rng.integers(0, 255, (120, 160, 3)).astype(np.uint8)))
    print("no error")
except SinkError as error:
    print(error)
sink.close()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        f"{path}: cannot be written: the file reached the largest size allowed here; "
        "roll files with `segment:` or raise the limit"
    ]
    assert path.stat().st_size <= 1_500_000
    with av.open(str(path)) as container:
        count = 0
        try:
            for frame in container.decode(video=0):
                assert frame.pts is not None
                count += 1
        except av.error.InvalidDataError:
            pytest.fail(f"the file breaks off after {count} frames")
    assert count > 50


def fill_with_noise(sink: RecordSink) -> None:
    rng = np.random.default_rng(0)
    for index in range(2000):
        sink.write(make_result(index, image=rng.integers(0, 255, (120, 160, 3)).astype(np.uint8)))


def test_a_mounted_disk_that_fills_up(tmp_path: Path, skeleton: DrawSkeleton) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a tmpfs is not allowed here")
    try:
        sink = RecordSink(disk / "gate.mp4", "gate", skeleton)
        with pytest.raises(SinkError, match=r"gate.mp4: cannot be written: the disk is full"):
            fill_with_noise(sink)
        sink.close()
        assert len(times_of(disk / "gate.mp4")) > 10
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize(("made", "words"), [("file", "is a file, not a folder"), ("folder", "this is a folder")])
def test_an_unwritable_path_is_one_line(made: str, words: str, tmp_path: Path, skeleton: DrawSkeleton) -> None:
    if made == "file":
        (tmp_path / "x").write_text("")
        path = tmp_path / "x" / "gate.mp4"
    else:
        path = tmp_path / "gate.mp4"
        path.mkdir()
    sink = RecordSink(path, "gate", skeleton)
    with pytest.raises(SinkError) as caught:
        sink.write(make_result(0))
    sink.close()
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pictures_that_no_video_can_have_cost_no_earlier_one(tmp_path: Path, skeleton: DrawSkeleton) -> None:
    path = tmp_path / "gate.mp4"
    path.write_text("an earlier one")
    with pytest.raises(SinkError, match=r"gate\.mp4: pictures of 20000x16 are too large for H\.264"):
        RecordSink(path, "gate", skeleton).write(make_result(0, size=(20000, 16)))
    assert path.read_text() == "an earlier one"


def test_names_and_presets_that_cannot_be(tmp_path: Path, skeleton: DrawSkeleton) -> None:
    with pytest.raises(ConfigError, match=r"written as \.mp4 or \.mkv"):
        RecordSink(tmp_path / "a.avi", "a", skeleton)
    with pytest.raises(ConfigError, match=r"unknown field \{cam\}"):
        RecordSink(tmp_path / "{cam}.mp4", "a", skeleton).write(make_result(0))
    with pytest.raises(ConfigError, match="known are ultrafast"):
        RecordSink(tmp_path / "a.mp4", "a", skeleton, preset="fastest").write(make_result(0))


def test_no_frames_no_file(tmp_path: Path, skeleton: DrawSkeleton) -> None:
    sink = write(tmp_path / "a.mp4", [], skeleton)
    assert sink.outputs() == ()
    assert list(tmp_path.iterdir()) == []


def test_times_that_stand_still_or_go_back_do_not_break_the_file(tmp_path: Path, skeleton: DrawSkeleton) -> None:
    write(tmp_path / "a.mp4", [0.0, 0.04, 0.04, 0.03, 0.08], skeleton)
    times = times_of(tmp_path / "a.mp4")
    assert len(times) == 5
    assert (np.diff(times) > 0).all()
    assert times[-1] == pytest.approx(0.08)


def test_the_fragments_are_on_disk_while_it_records(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    file = VideoFile(path, (64, 48), start_s=0.0, metadata=describe("a", 0.0, None, "annotated"))
    for index in range(100):
        file.add(np.full((48, 64, 3), index, np.uint8), index / 25)
    seen = len(times_of(path))
    file.close()
    assert seen >= 50, f"only {seen} of 100 frames can be read before the end"
    assert len(times_of(path)) == 100


@pytest.mark.parametrize("name", ["2026-11-25T10:30:00.mp4", "file:gate.mkv"])
def test_a_name_that_reads_as_a_protocol_is_a_file(
    name: str, tmp_path: Path, skeleton: DrawSkeleton, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sink = write(Path(name), [0.0, 0.04, 0.08], skeleton)
    assert sink.outputs() == (name,)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert len(times_of(tmp_path / name)) == 3
