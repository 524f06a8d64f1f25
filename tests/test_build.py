"""What is handed to keeper and source for a camera: by the defaults, by what its address is, and by its keys."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest

from streampose.build import KEY_FRAME_S, describe, first_reading, keep_options, second_reading, source_options
from streampose.build_sinks import check_outputs
from streampose.config import CameraConfig, validate
from streampose.config_file import load
from streampose.errors import ConfigError, SinkError
from streampose.messages import Array, Image
from streampose.pipeline.keeper import KeepOptions
from streampose.sinks.paths import fill

NEVER_ASKED: Any = SimpleNamespace(
    detectors={}, pose=SimpleNamespace(skeleton=SimpleNamespace(sigmas=np.full(17, 0.05), body=None))
)
"""Networks of which only the skeleton counts."""


class SeesNobody:
    """A detector that has nothing to compile and finds nobody."""

    def is_warm(self, width: int, height: int) -> bool:
        return True

    def warm_up(self, width: int, height: int) -> None:
        """Nothing to compile."""

    def __call__(self, images: Sequence[Image]) -> list[tuple[Array, Array]]:
        return [(np.zeros((0, 4), np.float32), np.zeros(0, np.float32)) for _ in images]


def nobody() -> Any:
    """Networks that run and find nobody."""

    def no_points(_: Sequence[Image], boxes: Sequence[Array]) -> list[Array]:
        return [np.zeros((len(own), 17, 3), np.float32) for own in boxes]

    pose: Any = no_points
    pose.skeleton = SimpleNamespace(sigmas=np.full(17, 0.05), keypoints=("nose",), body=None)
    return SimpleNamespace(detectors={1.0: SeesNobody()}, pose=pose, draw_skeleton=None, facts=dict)


def kept(url: str, **keys: object) -> KeepOptions:
    return keep_options("gate", CameraConfig.model_validate({"url": url, **keys}))


def opened(url: str, **keys: object) -> dict[str, object]:
    return source_options(CameraConfig.model_validate({"url": url, **keys}))


def test_the_limits_of_a_camera_follow_each_other() -> None:
    """A stall is said before the camera is given up, and its own limits strike before the watchdog's."""
    keep, source = kept("rtsp://10.0.0.2/x"), opened("rtsp://10.0.0.2/x")
    assert keep.live
    assert keep.stall_s < float(str(source["read_timeout_s"])) < keep.give_up_s < keep.unpaced_s
    assert float(str(source["read_timeout_s"])) < float(str(source["open_timeout_s"])) < keep.open_s
    assert kept("rtsp://10.0.0.2/x", read_timeout=100).deaf_s > 100, "what waits for the network is not stuck"
    assert kept("rtsp://10.0.0.2/x", open_timeout=100).deaf_s > 100


@pytest.mark.parametrize(
    ("url", "awaits_a_key_frame"),
    [
        ("rtsp://10.0.0.2/x", True),
        ("http://10.0.0.2/live.m3u8?token=1", True),
        ("0", False),
        ("test:people", False),
    ],
)
def test_what_may_keep_one_waiting_is_told_by_the_address(url: str, awaits_a_key_frame: bool) -> None:
    keep = kept(url)
    assert (keep.unpaced_s > keep.give_up_s) is awaits_a_key_frame


def test_a_recording_gets_no_second_try_so_its_server_has_longer() -> None:
    assert opened("http://10.0.0.2/clip.mp4")["read_timeout_s"] == opened("http://10.0.0.2/clip.mp4")["open_timeout_s"]
    assert opened("http://10.0.0.2/clip.mp4", read_timeout=60)["read_timeout_s"] == 60.0
    assert opened("http://10.0.0.2/video.mjpg", read_timeout=1)["read_timeout_s"] == 1.0


def test_the_sub_stream_is_what_is_kept_where_there_is_one() -> None:
    keep = kept("rtsp://10.0.0.2/main", detect_url="http://10.0.0.2/sub.m3u8", give_up_after=5)
    assert keep.unpaced_s == KEY_FRAME_S
    assert keep.give_up_s == 5.0


@pytest.mark.parametrize(
    ("camera", "sinks", "more", "words"),
    [
        ({"url": "foo://me:secret@x"}, [], {}, "cameras.gate.url: foo://***@x: scheme foo:// is not known; known are"),
        ({"detect_url": "foo://x"}, [], {}, "cameras.gate.detect_url: foo://x: scheme foo:// is not known"),
        ({"url": "test:people?fps=0"}, [], {}, "cameras.gate.url: test:people?fps=0: fps, seconds and people"),
        (
            {"url": "a.mp4", "max_age": "1s"},
            [],
            {},
            "cameras.gate.max_age: of a recording every frame is analysed, however old; leave max_age out, or set policy",
        ),
        (
            {"policy": "lossless", "max_age": "1s"},
            [],
            {},
            "cameras.gate.max_age: with policy: lossless every frame is analysed, however old",
        ),
        ({"only": ["a.jpg"]}, [], {}, "cameras.gate.only: names pictures of a folder; rtsp://10.0.0.2/x is none"),
        (
            {"url": "/dev/null", "only": ["a.jpg"]},
            [],
            {},
            "cameras.gate.only: names pictures of a folder; /dev/null is",
        ),
        ({"backoff": 0}, [], {}, "cameras.gate.backoff: 0 s; more than 0 and at most backoff_max, 2.5 s, is needed"),
        ({"backoff": "10s"}, [], {}, "cameras.gate.backoff: 10 s; more than 0 and at most backoff_max, 2.5 s"),
        ({}, [], {"smooth": {"offline": True}}, "cameras.gate: smooth.offline needs a recording"),
        (
            {"url": "/dev/null"},
            [],
            {"smooth": {"offline": True}},
            "twice, and /dev/null can be read only once; set smooth",
        ),
        (
            {"url": "test:people", "policy": "latest"},
            [],
            {"smooth": {"offline": True}},
            "cameras.gate.policy: latest passes over frames, and smooth.offline needs every one; set policy: lossless",
        ),
        ({}, [{"record": {"path": "a.avi"}}], {}, "a.avi: a video is written as .mp4 or .mkv"),
        ({}, [{"record": {"path": "{cam}.mp4"}}], {}, "{cam}.mp4: unknown field {cam}"),
        ({}, [{"record": {"preset": "slowest"}}], {}, 'record.preset: "slowest" is none of x264\'s'),
        ({}, [{"record": {"size": "8x8"}}], {}, "record.size: 8x8; from 16x16 to 16384x16384 is possible"),
        ({}, [{"record": {"size": "99999x720"}}], {}, "record.size: 99999x720"),
        ({}, [{"record": {"segment": 0}}], {}, "sinks: record.segment: 0; a time such as 10m is needed"),
        ({}, [{"jsonl": {"segment": "0s"}}], {}, "sinks: jsonl.segment: 0"),
        ({}, [{"record": {"segment": 1.0e-320}}], {}, "sinks: record.segment: "),
        ({}, [{"record": {"keep": "7d"}}], {}, "sinks: record.keep: is of files that roll; give a `segment`"),
        ({}, [{"record": {"min_free": "5GB"}}], {}, "sinks: record.min_free: is of files that roll"),
        (
            {},
            [{"jsonl": {"path": "o/{camera}/../x.jsonl"}}],
            {"cameras": {"gate": {"url": "test:people"}, "yard": {"url": "test:people"}}},
            "sinks: jsonl.path: cameras gate and yard would both write o/x.jsonl",
        ),
        ({}, [{"jsonl": {"path": "{date}{x}.jsonl"}}], {}, "unknown field {x}"),
        ({}, ["record", {"record": {"crf": 40}}], {}, "sinks: record and record would both write out/gate.mp4"),
        (
            {},
            [{"record": {"mode": "both"}}, {"record": {"path": "out/{camera}.source.mp4"}}],
            {},
            "would both write out/gate.source.mp4",
        ),
        (
            {},
            [{"record": {"path": "a/{camera}.mp4", "mode": "both"}}, {"record": {"path": "b.mkv", "mode": "source"}}],
            {},
            "sinks: record.mode: a/{camera}.mp4 and b.mkv would both record the source's own stream; one can",
        ),
        (
            {"url": "test:people?live=1"},
            [{"record": {"mode": "source"}}],
            {},
            "sinks: record.mode: cameras.gate: a test pattern has no stream to record",
        ),
        (
            {"url": "holiday.jpg"},
            [{"record": {"mode": "both"}}],
            {},
            "sinks: record.mode: cameras.gate: pictures have no stream to record",
        ),
        (
            {"url": "foo://x"},
            [{"record": {"mode": "both"}}],
            {},
            "cameras.gate.url: foo://x: scheme foo:// is not known",
        ),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_opened(
    camera: dict[str, object], sinks: list[object], more: dict[str, object], words: str
) -> None:
    data = {"cameras": {"gate": {"url": "rtsp://10.0.0.2/x", **camera}}, "sinks": sinks, **more}
    with pytest.raises(ConfigError) as caught:
        describe(validate(data))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("camera", "patience_s"),
    [
        ({"url": "test:people?live=1"}, 1.0),
        ({"url": "test:people"}, None),
        ({"url": "test:people?live=1", "policy": "lossless"}, None),
    ],
)
def test_only_who_may_lose_frames_passes_over_a_sink_that_hangs(
    camera: dict[str, str], patience_s: float | None, tmp_path: Path
) -> None:
    sinks = [{"jsonl": {"path": f"{tmp_path}/a.jsonl"}}]
    run = first_reading(validate({"cameras": {"a": camera}, "sinks": sinks}), nobody()).run
    assert [output._patience_s for output in run.cameras["a"].lane.outputs] == [patience_s]


@pytest.mark.parametrize(
    ("cameras", "sink", "lost"),
    [
        ({"a": "a/clip.mp4"}, {"jsonl": {"path": "a/clip.mp4"}}, "a/clip.mp4"),
        ({"clip": "a/clip.mp4", "b": "b"}, {"jsonl": {"path": "a/{camera}.mp4"}}, "a/clip.mp4"),
        ({"a": "a/clip.mp4"}, {"record": {"path": "a/clip.mp4"}}, "a/clip.mp4"),
        ({"a": "b"}, {"jsonl": {"path": "b/one.jpg"}}, "b/one.jpg"),
        ({"a": "b"}, {"pictures": {"path": "b/../b"}}, "b/../b/one.jpg"),
        ({"a": "b/one.jpg"}, {"pictures": {"path": "b"}}, "b/one.jpg"),
        ({"a": "b", "b": "a"}, {"pictures": {"path": "{camera}"}}, "a/one.jpg"),
        ({"a": "a/clip.mp4"}, {"pictures": {"path": "a"}}, None),
        ({"a": "b"}, {"pictures": {"path": "{camera}"}}, None),
    ],
)
def test_nothing_that_is_read_is_an_output(
    cameras: dict[str, str], sink: dict[str, Any], lost: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a/clip.mp4", "a/one.jpg", "b/one.jpg"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_bytes(b"dear")
    config = validate({"cameras": {name: {"url": url} for name, url in cameras.items()}, "sinks": [sink]})
    with nullcontext() if lost is None else pytest.raises(SinkError, match=f"^{lost}: this is what is read"):
        check_outputs(config)


def test_a_name_that_the_file_system_refuses_is_none_of_what_is_read(tmp_path: Path) -> None:
    """As is a file below a folder that may not be entered: whoever opens it says so."""
    sinks = [{"jsonl": {"path": f"{tmp_path}/{{camera}}.jsonl"}}]
    check_outputs(validate({"cameras": {"a": {"url": f"{tmp_path}/{'long' * 100}.mp4"}}, "sinks": sinks}))


@pytest.mark.parametrize("scales", [(1.0,), (1.0, 0.5)])
def test_the_governor_takes_no_resolution_where_no_smaller_detector_is(
    scales: tuple[float, ...], caplog: pytest.LogCaptureFixture
) -> None:
    models: Any = SimpleNamespace(**{**vars(NEVER_ASKED), "detectors": dict.fromkeys(scales)})
    camera = {"url": "test:people?live=1", "max_age": "100ms", "degrade": ["resolution", "fps"]}
    with caplog.at_level("INFO", "streampose.build"):
        run = first_reading(validate({"cameras": {"a": camera}, "sinks": []}), models).run
    governor = run.cameras["a"].lane.governor
    assert governor is not None
    changes = [change for second in range(900) if (change := governor.observe(9.0, second / 10))]
    rungs = ["8 frames a second", "4 frames a second", "1 frame a second"]
    said = ["a: degrade: no detector of half the size is loaded; resolution is left out"]
    assert [change.what for change in changes] == (rungs if len(scales) == 1 else ["detect at half resolution", *rungs])
    assert caplog.messages == (said if len(scales) == 1 else [])


def test_a_contract_of_age_is_of_whoever_may_lose_frames() -> None:
    for camera in ({"url": "rtsp://10.0.0.2/x"}, {"url": "a.mp4", "policy": "latest"}):
        assert describe(validate({"cameras": {"gate": {**camera, "max_age": "1s"}}}))


def test_the_configurations_that_come_along_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GATE_PASSWORD", "YARD_PASSWORD"):
        monkeypatch.setenv(name, "a word")
    paths = sorted((Path(__file__).parent.parent / "configs").glob("*.yaml"))
    assert paths
    for path in paths:
        assert describe(load(path))


def test_a_reader_that_was_given_up_begins_no_file_when_it_comes_back(short_clip: Path, tmp_path: Path) -> None:
    """It hung in a native call, its successor reads the camera: the real tap of a run, in threads of its group."""
    record = {"record": {"path": f"{tmp_path}/{{camera}}.mp4", "mode": "source"}}
    config = validate({"cameras": {"a": {"url": str(short_clip)}}, "sinks": [record]})
    run = first_reading(config, NEVER_ASKED).run
    tap: Any = run.cameras["a"].tap
    back = threading.Event()

    def read(hangs: bool) -> None:
        with av.open(str(short_clip)) as container:
            if hangs:
                back.wait(60)
            for packet in container.demux(video=0):
                tap.write(packet, container.streams.video[0])

    stuck = run.group.start("read:a", lambda: read(hangs=True), abandonable=True)
    run.group.abandon(stuck)
    run.group.start("read:a", lambda: read(hangs=False), abandonable=True).thread.join()
    back.set()
    stuck.thread.join()
    tap.close()
    assert tap.outputs() == (str(tmp_path / "a.source.mp4"),)
    assert [path.name for path in tmp_path.iterdir()] == ["a.source.mp4"]


def test_what_failed_in_the_first_reading_is_not_forgotten_when_the_second_goes_well(
    short_clip: Path, tmp_path: Path
) -> None:
    """A server may answer the second time; the results of what was not read before are missing all the same."""
    sinks = [{"jsonl": {"path": f"{tmp_path}/a.jsonl"}}]
    config = validate({"cameras": {"a": {"url": str(short_clip)}}, "smooth": {"offline": True}, "sinks": sinks})
    first = first_reading(config, nobody())
    first.run.cameras["a"].lane.tally.error = "the server fell silent"
    second = second_reading(config, nobody(), first)
    second.run.execute(lambda: None)
    assert [str(failure) for failure in second.run.failures()] == ["a: the server fell silent"]
    footer = json.loads((tmp_path / "a.jsonl").read_text().splitlines()[-1])
    assert (footer["complete"], footer["error"]) == (False, "the server fell silent")


def test_the_source_stream_of_a_recording_that_is_read_twice_is_recorded_once(short_clip: Path, tmp_path: Path) -> None:
    record = {"record": {"path": f"{tmp_path}/{{camera}}.mp4", "mode": "source", "segment": "1h"}}
    config = validate({"cameras": {"a": {"url": str(short_clip)}}, "smooth": {"offline": True}, "sinks": [record]})
    first = first_reading(config, nobody())
    first.run.execute(lambda: None)
    assert not list(tmp_path.rglob("*.mp4"))
    second = second_reading(config, nobody(), first)
    second.run.execute(lambda: None)
    (path,) = tmp_path.rglob("*.mp4")
    assert second.run.cameras["a"].outputs() == [(str(path),)]
    with av.open(str(path)) as recorded:
        assert sum(bool(packet.size) for packet in recorded.demux(video=0)) == 20


@pytest.mark.parametrize("camera", ["away", "taken out", "without its sink"])
def test_old_files_are_deleted_while_no_picture_of_their_camera_is_recorded(
    camera: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streampose.sinks.retention.SWEEP_EVERY_S", 0.05)
    template, now_s = f"{tmp_path}/{{camera}}.mp4", time.time()
    record = {"record": {"path": template, "segment": "10m", "keep": "1h"}}
    cameras = {"gate": {"url": "rtsp://127.0.0.1:9/gate"}, "yard": {"url": "test:people?live=1&fps=5"}}
    for hours in (0, 1):  # a file where the folder of the day should be ends the sink of the yard
        day = fill(template, "yard", now_s + 3600 * hours).parent
        day.parent.mkdir(exist_ok=True)
        day.touch()
    run = first_reading(validate({"cameras": cameras, "sinks": [record]}), nobody()).run
    old = fill(template, "yard" if camera == "without its sink" else "gate", now_s - 2 * 86400)
    gate, yard = run.cameras["gate"], run.cameras["yard"]
    ready = {
        "away": lambda: gate.lane.tally.state == "reconnecting",
        "taken out": gate.closed,
        "without its sink": lambda: yard.sinks[0].ended,
    }[camera]
    made = False
    until_s = time.monotonic() + 30

    def tick() -> None:
        nonlocal made
        assert time.monotonic() < until_s, "the old file is never deleted"
        if camera == "taken out":
            run.remove("gate")
        if not made and ready():
            old.parent.mkdir(parents=True)
            old.touch()
            os.utime(old, (now_s - 2 * 86400, now_s - 2 * 86400))
            made = True
        elif made and not old.exists():
            run.stop()

    run.execute(tick, 0.02)
    assert made
    assert not old.exists()
