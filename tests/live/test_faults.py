"""Each fault of camera and network, one at a time: survived, told, back within five seconds, the account closed."""

from __future__ import annotations

import itertools
import threading
import time
from dataclasses import replace

import pytest

from tests.live.camera import CameraProcess
from tests.live.proxy import Network
from tests.live.rig import PATIENCE, Rig, Seen

pytestmark = [pytest.mark.rtsp, pytest.mark.slow]

BACK_S = 5.0
FPS = 10


@pytest.mark.parametrize("transport", ["tcp", "udp"])
@pytest.mark.parametrize("mount", ["/h264", "/h265", "/mjpeg"])
def test_every_codec_over_every_transport(cameras: CameraProcess, mount: str, transport: str) -> None:
    with Rig() as rig:
        camera = rig.watch("gate", f"rtsp://127.0.0.1:{cameras.port}{mount}", options={"transport": transport})
        camera.wait_for_frames(20)
    assert all(seen.number is not None for seen in camera.seen), "a picture was damaged"
    assert camera.uncovered(FPS) == []
    follow_what_is_shown(camera.seen)


CONNECTION_FAULTS = ["refuse", "slam", "silent", "deny", "garbage", "drip"]


@pytest.mark.parametrize("fault", CONNECTION_FAULTS)
def test_a_connection_fault_is_told_and_the_camera_comes_back(
    cameras: CameraProcess, network: Network, fault: str
) -> None:
    proxy = network.proxy(lambda: cameras.port)
    with Rig() as rig:
        camera = rig.watch("gate", proxy.url("/h264"))
        camera.wait_for_frames(3)
        if fault == "refuse":
            proxy.refuse(True)
        else:
            setattr(proxy.faults, fault, True)
            if fault != "silent":
                proxy.cut(reset=True)
        camera.wait(lambda w: w.state == "reconnecting", 8.0)
        time.sleep(0.5)
        if fault == "refuse":
            proxy.refuse(False)
        else:
            setattr(proxy.faults, fault, False)
        back_s = camera.wait_for_frames(1, BACK_S + 3)
    assert back_s < BACK_S + 3
    assert {"disconnected"} <= {gap.cause for gap in camera.gaps}
    assert camera.uncovered(FPS) == []
    assert camera.breaks[-1].segment >= 1


def test_a_camera_absent_at_the_start_is_found_when_it_comes(cameras: CameraProcess, network: Network) -> None:
    proxy = network.proxy(lambda: cameras.port)
    proxy.refuse(True)
    with Rig() as rig:
        absent = rig.watch("absent", proxy.url("/h264"))
        present = rig.watch("present", f"rtsp://127.0.0.1:{cameras.port}/h264")
        present.wait_for_frames(5)
        absent.wait(lambda w: w.state == "reconnecting", 5.0)
        proxy.refuse(False)
        assert absent.wait_for_frames(1, BACK_S) < BACK_S
    assert absent.gaps[0].start_s == 0.0
    assert absent.gaps[0].cause == "disconnected"


def test_a_hung_camera_stalls_and_goes_on(network: Network, rtsp: None) -> None:
    with CameraProcess({"mount": "/a", "fps": FPS}) as process, Rig() as rig:
        camera = rig.watch("gate", network.proxy(lambda: process.port).url("/a"))
        camera.wait_for_frames(5)
        process.hang()
        camera.wait(lambda w: w.state == "stalled", 4.0)
        camera.wait(lambda w: w.state == "reconnecting", 8.0)
        process.go_on()
        camera.wait_for_frames(1, BACK_S)
    assert "stalled" in {gap.cause for gap in camera.gaps}
    assert camera.uncovered(FPS) == []


def test_a_killed_camera_comes_back_with_another_picture_in_a_new_segment(network: Network, rtsp: None) -> None:
    with CameraProcess({"mount": "/a", "fps": FPS}) as process, Rig() as rig:
        camera = rig.watch("gate", network.proxy(lambda: process.port).url("/a"))
        for wish in (
            {"mount": "/a", "width": 320, "height": 240, "fps": FPS},
            {"mount": "/a", "codec": "h265", "fps": FPS},
            {"mount": "/a", "codec": "mjpeg", "fps": 5},
        ):
            camera.wait_for_frames(3)
            process.kill()
            camera.wait(lambda w: w.state == "reconnecting", 5.0)
            process.wishes = [wish]
            process.revive()
            camera.wait_for_frames(3, BACK_S + 1)
    assert [b.info.width for b in camera.breaks] == [160, 320, 160, 160]
    assert [b.info.codec for b in camera.breaks] == ["h264", "h264", "hevc", "mjpeg"]
    assert [seen.index for seen in camera.seen] == sorted({seen.index for seen in camera.seen}), "index never restarts"


@pytest.mark.parametrize("transport", ["tcp", "udp"])
@pytest.mark.parametrize("fault", ["loss", "flip", "double", "swap"])
def test_bad_packets_cost_pictures_but_never_the_watch(
    cameras: CameraProcess, network: Network, fault: str, transport: str
) -> None:
    proxy = network.proxy(lambda: cameras.port, seed=7)
    with Rig() as rig:
        camera = rig.watch("gate", proxy.url("/h264"), options={"transport": transport})
        camera.wait_for_frames(5)
        setattr(proxy.faults, fault, 0.15)
        time.sleep(4.0)
        setattr(proxy.faults, fault, 0.0)
        back_s = camera.wait_for_frames(5, BACK_S)
    assert back_s < BACK_S
    assert proxy.struck[fault] > 0
    shown = [s for s in camera.seen if s.number is not None]
    assert len(shown) > 10
    assert [s.number for s in shown] == sorted(s.number for s in shown if s.number is not None), "pictures out of order"
    if transport == "udp" and fault in ("double", "swap"):
        assert len(shown) == len(camera.seen), "what only came twice or late was put right"


@pytest.mark.parametrize("hours", [-5, 3, 12])
def test_a_jump_of_the_source_clock_is_a_new_segment_and_time_goes_on(
    cameras: CameraProcess, network: Network, hours: int
) -> None:
    proxy = network.proxy(lambda: cameras.port)
    with Rig() as rig:
        camera = rig.watch("gate", proxy.url("/h264"))
        camera.wait_for_frames(15)
        proxy.faults.jump_ticks = int(hours * 3600 * 90_000)
        camera.wait_for_frames(12)
    assert len(camera.breaks) == 2
    assert "jumped" in camera.breaks[1].reason
    follow_what_is_shown(camera.seen)


def test_one_absurd_stamp_changes_nothing(cameras: CameraProcess, network: Network) -> None:
    proxy = network.proxy(lambda: cameras.port)
    with Rig() as rig:
        camera = rig.watch("gate", proxy.url("/h264"))
        camera.wait_for_frames(15)
        for hours in (4, -4):
            proxy.faults.odd_frame_ticks = hours * 3600 * 90_000
            camera.wait_for_frames(10)
    assert len(camera.breaks) == 1
    follow_what_is_shown(camera.seen)


def test_the_wrap_of_the_source_clock_is_not_seen(cameras: CameraProcess, network: Network) -> None:
    proxy = network.proxy(lambda: cameras.port)
    proxy.faults.start_ticks = (1 << 32) - 90_000 * 2
    with Rig() as rig:
        camera = rig.watch("gate", proxy.url("/h264"))
        camera.wait_for_frames(35)
    assert len(camera.breaks) == 1
    assert camera.gaps == []
    follow_what_is_shown(camera.seen)


def follow_what_is_shown(seen: list[Seen]) -> None:
    """The camera's time between two frames is the time between what their pictures show, whatever the stamps said.

    Not in the first second of a connection: libav analyses that long before it gives what has come, all at once, and the
    first pictures have no stamp.
    """
    begun_s: dict[int, float] = {}
    for one in seen:
        begun_s.setdefault(one.segment, one.time_s)
    compared = 0
    for before, after in itertools.pairwise(seen):
        if before.shown_s is None or after.shown_s is None or before.time_s - begun_s[0] < 1.0:
            continue
        compared += 1
        assert after.time_s - before.time_s == pytest.approx(after.shown_s - before.shown_s, abs=0.15)
    assert compared >= 5


def test_the_wall_time_is_that_of_capture_once_the_camera_reports(cameras: CameraProcess, network: Network) -> None:
    with Rig() as rig:
        camera = rig.watch("gate", f"rtsp://127.0.0.1:{cameras.port}/h264")
        camera.wait(lambda w: sum(s.wall_source == "rtcp" for s in w.seen) >= 10, 20.0)
    reported = [seen for seen in camera.seen if seen.wall_source == "rtcp"]
    for seen in reported[2:]:  # libav hands the first report to the packet before the one that it is about
        assert seen.wall_s is not None
        assert seen.shown_s is not None
        assert seen.wall_s == pytest.approx(cameras.began_s + seen.shown_s, abs=0.05)


def test_wrong_credentials_are_told_and_right_ones_work(
    network: Network, rtsp: None, caplog: pytest.LogCaptureFixture
) -> None:
    secret = "p@ss/w%rd:"
    with CameraProcess({"user": "admin", "password": secret}, {"mount": "/a", "fps": FPS}) as process, Rig() as rig:
        right = rig.watch("right", f"rtsp://admin:p%40ss%2Fw%25rd%3A@127.0.0.1:{process.port}/a")
        wrong = rig.watch("wrong", f"rtsp://admin:guessp%40ss%2Fw%25rd%3A@127.0.0.1:{process.port}/a")
        right.wait_for_frames(5)
        wrong.wait(lambda w: w.state == "reconnecting", 5.0)
    reasons = " ".join(state.reason for _, state in wrong.states)
    assert "refuses the user or password" in reasons
    assert wrong.count == 0
    for text in (reasons, caplog.text, str(right.breaks), str(wrong.gaps)):
        assert "w%rd" not in text
        assert "w%25rd" not in text


def test_a_frozen_picture_with_running_time_is_noticed(rtsp: None) -> None:
    from streampose.sources.blind import Watch

    with CameraProcess({"mount": "/a", "fps": FPS}) as process, Rig() as rig:
        camera = rig.watch("gate", f"rtsp://127.0.0.1:{process.port}/a", make_watch=lambda: Watch({"frozen": 2.0}))
        camera.wait_for_frames(10)
        process.ask(freeze="/a", on=True)
        camera.wait(lambda w: "frozen" in w.said(), 8.0)
        process.ask(freeze="/a", on=False)
        camera.wait(lambda w: w.said()[-1] == "seeing", 5.0)
    assert camera.state == "ended"
    assert len(camera.breaks) == 1


@pytest.mark.parametrize("where", ["silent at open", "live", "away"])
def test_the_stop_is_heard_within_three_seconds(cameras: CameraProcess, network: Network, where: str) -> None:
    proxy = network.proxy(lambda: cameras.port)
    proxy.faults.silent = where == "silent at open"
    if where == "away":
        proxy.refuse(True)
    keep = replace(PATIENCE, open_s=30.0)
    with Rig() as rig:
        camera = rig.watch("gate", proxy.url("/h264"), keep=keep, options={"open_timeout_s": 20.0})
        if where == "live":
            camera.wait_for_frames(3)
        else:
            time.sleep(1.5)
    assert rig.stop_s < 3.0


def test_nothing_is_left_behind(cameras: CameraProcess, network: Network) -> None:
    """Threads and open files after twenty reconnects are those of one."""
    import psutil

    proxy = network.proxy(lambda: cameras.port)
    process = psutil.Process()

    def threads() -> int:
        return sum(t.name.startswith(("read:", "produce:", "consume:")) for t in threading.enumerate())

    with Rig() as rig:
        camera = rig.watch("gate", proxy.url("/h264"), keep=replace(PATIENCE, backoff_first_s=0.05, backoff_cap_s=0.1))
        files: list[int] = []
        for _ in range(8):
            camera.wait_for_frames(2)
            files.append(process.num_fds())
            assert threads() == 3
            proxy.cut(reset=True)
            camera.wait(lambda w: w.state == "reconnecting", 5.0)
    assert max(files[2:]) <= files[1] + 1, files
    assert threads() == 0
