"""Each fault of camera and network: survived, told, back soon, the account closed.

How soon is the table's matter (`make live`): here a machine that runs other tests has twice the time. Faults of one kind
strike several cameras side by side, each behind its own proxy: it is the waiting that takes the time.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from streampose.pipeline.keeper import KeepOptions
from streampose.sources.blind import Watch
from tests.clocks import OwnTime
from tests.live.camera import CameraProcess
from tests.live.chaos import BACK_S
from tests.live.proxy import Network, Proxy
from tests.live.rig import Rig, Seen, Watched

pytestmark = [pytest.mark.rtsp, pytest.mark.slow]

PATIENT_S = 2 * BACK_S
FPS = 10


def follows_what_is_shown(camera: Watched) -> None:
    """Time between two frames is the time between what their pictures show, whatever the stamps said.

    Not in the first second of a connection: libav analyses that long before it gives what has come, all at once, and the
    first pictures have no stamp.
    """
    compared = 0
    for before, after in itertools.pairwise(camera.seen):
        if before.shown_s is None or after.shown_s is None or before.time_s - camera.seen[0].time_s < 1.0:
            continue
        compared += 1
        shown_s = after.shown_s - before.shown_s
        assert after.time_s - before.time_s == pytest.approx(shown_s, abs=0.15), (camera.name, before, after)
    assert compared >= 5, camera.name


def all_wait_for_frames(cameras: Iterable[Watched], more: int, within_s: float = 15.0) -> None:
    goals = [(camera, camera.count + more) for camera in cameras]
    until_s = time.monotonic() + within_s
    for camera, goal in goals:
        camera.wait(lambda w, goal=goal: w.count >= goal, max(until_s - time.monotonic(), 0.01))  # type: ignore[misc]


def test_every_codec_over_every_transport(cameras: CameraProcess) -> None:
    with Rig() as rig:
        watched = [
            rig.watch(
                f"{mount}-{transport}", f"rtsp://127.0.0.1:{cameras.port}/{mount}", config={"transport": transport}
            )
            for mount in ("h264", "h265", "mjpeg", "reordered")
            for transport in ("tcp", "udp")
        ]
        all_wait_for_frames(watched, 22)
    for camera in watched:
        assert all(seen.number is not None for seen in camera.seen), f"{camera.name}: a picture was damaged"
        assert camera.uncovered(FPS) == [], camera.name
        numbers = [seen.number for seen in camera.seen if seen.number is not None]
        assert numbers == sorted(numbers), f"{camera.name}: pictures out of order"
        follows_what_is_shown(camera)


def set_fault(proxy: Proxy, fault: str, on: bool) -> None:
    if fault in ("refuse", "dead"):
        getattr(proxy, fault)(on)
    else:
        setattr(proxy.faults, fault, on)
        if on and fault != "silent":
            proxy.cut(reset=True)


def test_connection_faults_are_told_and_the_cameras_come_back(cameras: CameraProcess, network: Network) -> None:
    faults = ("refuse", "slam", "silent", "dead", "deny", "garbage", "drip")
    proxies = {fault: network.proxy(lambda: cameras.port) for fault in faults}
    with Rig() as rig:
        watched = {fault: rig.watch(fault, proxy.url("/h264")) for fault, proxy in proxies.items()}
        stable = rig.watch("stable", f"rtsp://127.0.0.1:{cameras.port}/h264")
        all_wait_for_frames([*watched.values(), stable], 3)
        for fault, proxy in proxies.items():
            set_fault(proxy, fault, True)
        for camera in watched.values():
            camera.wait(lambda w: w.state == "reconnecting", PATIENT_S)
        time.sleep(0.5)
        for fault, proxy in proxies.items():
            set_fault(proxy, fault, False)
        all_wait_for_frames(watched.values(), 1, PATIENT_S)
    for fault, camera in watched.items():
        assert "disconnected" in {gap.cause for gap in camera.gaps}, fault
        assert camera.uncovered(FPS) == [], fault
        assert camera.breaks[-1].segment >= 1, fault
    assert {gap.cause for gap in stable.gaps} <= {"dropped"}, "a stable camera suffered from its neighbours"
    assert len(stable.breaks) == 1


def test_a_camera_that_is_silent_for_ever_is_back_soon_after_its_server(
    cameras: CameraProcess, network: Network
) -> None:
    """What was connected stays silent, and so does what connected meanwhile: nothing but the own limits ends it."""

    def silence(camera: Watched, proxy: Proxy, tries: int) -> None:
        camera.wait_for_frames(5)
        accepted, segments = proxy.accepted, camera.segments
        proxy.dead(True)
        camera.wait(lambda w: proxy.accepted >= accepted + tries, 15.0)
        proxy.dead(False)
        camera.wait(lambda w: w.segments >= segments + 1, PATIENT_S)

    with Rig() as rig, ThreadPoolExecutor() as pool:
        silenced = []
        for transport in ("tcp", "udp"):
            for tries in (0, 2):  # how many begin in the silence before the server is back
                proxy = network.proxy(lambda: cameras.port)
                camera = rig.watch(f"{transport}-{tries}", proxy.url("/h264"), config={"transport": transport})
                silenced.append((camera, pool.submit(silence, camera, proxy, tries)))
        for _, done in silenced:
            done.result()
    for camera, _ in silenced:
        assert camera.uncovered(FPS) == [], camera.name
        assert "read_timeout allows" in camera.breaks[-1].reason
        assert camera.producer.keeper.abandoned == 0


def test_pictures_that_are_far_apart_break_no_connection(far_apart: Rig) -> None:
    """By nature, whatever the camera says of its rate, and by the key frames that alone are wanted."""
    watched = far_apart.watched
    for camera in watched:
        camera.wait(lambda w: w.count >= 7, 60.0)
    far_apart.stop()
    for camera in watched:
        assert "reconnecting" not in camera.said(), camera.states
        assert len(camera.breaks) == 1
        shown_s = [seen.shown_s for seen in camera.seen if seen.shown_s is not None]
        assert min(after - before for before, after in itertools.pairwise(shown_s)) > 1.5, camera.name
        paced_s = camera.seen[5].at_s
        assert all(state.state != "stalled" for at_s, state in camera.states if at_s > paced_s)


def test_a_camera_that_refuses_for_a_while_what_it_knew_is_back_soon(rtsp: None, network: Network) -> None:
    """As one that starts up does. Whoever it never knew is asked seldom, and not before."""
    secret = "sesame77"
    with CameraProcess({"user": "admin", "password": secret}, {"mount": "/a", "fps": FPS}) as process, Rig() as rig:
        known, unknown = network.proxy(lambda: process.port), network.proxy(lambda: process.port)
        camera = rig.watch("known", known.url("/a", f"admin:{secret}"))
        camera.wait_for_frames(5)
        process.ask(user="admin", password="another")
        process.ask(drop_clients=True)
        stranger = rig.watch("unknown", unknown.url("/a", f"admin:{secret}"))
        for watched, proxy in ((camera, known), (stranger, unknown)):
            watched.wait(lambda w: "refuses the user" in w.states[-1][1].reason, 10.0)
            assert proxy.accepted
        before, asked, since_s = known.accepted, unknown.accepted, time.monotonic()
        camera.wait(lambda w: known.accepted >= before + 3, 15.0)
        process.ask(user="admin", password=secret)
        camera.wait(lambda w: w.segments == 2, PATIENT_S)
        seldom = 1 + (time.monotonic() - since_s) // (KeepOptions().refused_backoff_s / 2)
        assert unknown.accepted <= asked + seldom, "a stranger insists"
    assert "refuses the user or password" in camera.breaks[-1].reason


def test_a_camera_absent_at_the_start_is_found_when_it_comes(cameras: CameraProcess, network: Network) -> None:
    proxy = network.proxy(lambda: cameras.port)
    proxy.refuse(True)
    with Rig() as rig:
        absent = rig.watch("absent", proxy.url("/h264"))
        present = rig.watch("present", f"rtsp://127.0.0.1:{cameras.port}/h264")
        present.wait_for_frames(5)
        absent.wait(lambda w: w.state == "reconnecting", PATIENT_S)
        proxy.refuse(False)
        absent.wait_for_frames(1, PATIENT_S)
    assert absent.gaps[0].start_s == 0.0
    assert absent.gaps[0].cause == "disconnected"


def test_a_hung_camera_stalls_and_goes_on(network: Network, rtsp: None) -> None:
    with CameraProcess({"mount": "/a", "fps": FPS}) as process, Rig() as rig:
        camera = rig.watch("gate", network.proxy(lambda: process.port).url("/a"))
        camera.wait_for_frames(5)
        process.hang()
        camera.wait(lambda w: w.state == "stalled", PATIENT_S)
        camera.wait(lambda w: w.state == "reconnecting", PATIENT_S)
        process.go_on()
        camera.wait_for_frames(1, PATIENT_S)
    assert "stalled" in camera.said()
    assert {"stalled", "disconnected"} & {gap.cause for gap in camera.gaps}
    assert camera.uncovered(FPS) == []


def test_a_killed_camera_comes_back_with_another_picture_in_a_new_segment(network: Network, rtsp: None) -> None:
    with CameraProcess({"mount": "/a", "fps": FPS}) as process, Rig() as rig:
        camera = rig.watch("gate", network.proxy(lambda: process.port).url("/a"))
        for wish in (
            {"mount": "/a", "width": 320, "height": 240, "fps": FPS},
            {"mount": "/a", "codec": "h265", "fps": FPS},
            {"mount": "/a", "codec": "mjpeg", "fps": 5},
        ):
            camera.wait_for_frames(2)
            process.kill()
            camera.wait(lambda w: w.state == "reconnecting", PATIENT_S)
            process.wishes = [wish]
            process.revive()
            camera.wait_for_frames(2, PATIENT_S)
    assert [b.info.width for b in camera.breaks] == [160, 320, 160, 160]
    assert [b.info.codec for b in camera.breaks] == ["h264", "h264", "hevc", "mjpeg"]
    assert [seen.index for seen in camera.seen] == sorted({seen.index for seen in camera.seen}), "index never restarts"


def test_bad_packets_cost_pictures_but_never_the_watch(cameras: CameraProcess, network: Network) -> None:
    kinds = list(itertools.product(("loss", "flip", "double", "swap"), ("tcp", "udp")))
    proxies = {kind: network.proxy(lambda: cameras.port, seed=7) for kind in kinds}
    with Rig() as rig:
        watched = {
            kind: rig.watch("-".join(kind), proxy.url("/h264"), config={"transport": kind[1]})
            for kind, proxy in proxies.items()
        }
        all_wait_for_frames(watched.values(), 5)
        for (fault, _), proxy in proxies.items():
            setattr(proxy.faults, fault, 0.15)
        time.sleep(3.0)
        for (fault, _), proxy in proxies.items():
            setattr(proxy.faults, fault, 0.0)
        all_wait_for_frames(watched.values(), 5, PATIENT_S)
    for (fault, transport), camera in watched.items():
        assert proxies[fault, transport].struck[fault] > 0
        shown = [seen for seen in camera.seen if seen.number is not None]
        numbers = [seen.number for seen in shown if seen.number is not None]
        assert len(numbers) > 6, camera.name
        assert numbers == sorted(numbers), f"{camera.name}: pictures out of order"
        assert camera.uncovered(FPS) == [], camera.name
        if transport == "udp" and fault in ("double", "swap"):
            assert len(shown) == len(camera.seen), f"{camera.name}: what only came twice or late was not put right"


HOURS_TICKS = 3600 * 90_000


def test_time_follows_the_pictures_whatever_the_stamps_do(cameras: CameraProcess, network: Network) -> None:
    """The clock of the source jumps by hours, or by seconds, sends single absurd stamps, wraps."""
    jumps = {"back": -5, "ahead": 3, "far ahead": 11, "seconds ahead": 5 / 3600}
    names = [*jumps, "odd", "wrap"]
    proxies = {name: network.proxy(lambda: cameras.port) for name in names}
    proxies["wrap"].faults.start_ticks = (1 << 32) - 90_000 * 2
    with Rig() as rig:
        watched = {name: rig.watch(name, proxy.url("/h264")) for name, proxy in proxies.items()}
        all_wait_for_frames(watched.values(), 4 * FPS)  # by then the first that waited are through
        for name, hours in jumps.items():
            proxies[name].faults.jump_ticks = round(hours * HOURS_TICKS)
        for hours in (4, -4):
            proxies["odd"].faults.odd_frame_ticks = hours * HOURS_TICKS
            all_wait_for_frames(watched.values(), 8)
    for name, camera in watched.items():
        follows_what_is_shown(camera)
        assert len(camera.breaks) == (2 if name in jumps else 1), f"{name}: {camera.breaks}"
        assert camera.uncovered(FPS) == []
    assert all("jumped" in watched[name].breaks[1].reason for name in jumps)


def test_the_wall_time_is_that_of_capture_once_the_camera_reports(cameras: CameraProcess) -> None:
    with Rig() as rig:
        camera = rig.watch("gate", f"rtsp://127.0.0.1:{cameras.port}/h264")
        camera.wait(lambda w: sum(s.wall_source == "rtcp" for s in w.seen) >= 10, 20.0)
    reported: list[Seen] = [seen for seen in camera.seen if seen.wall_source == "rtcp"]
    for seen in reported:
        assert seen.wall_s is not None
        assert seen.shown_s is not None
        assert seen.wall_s == pytest.approx(cameras.began_s + seen.shown_s, abs=0.05)


def test_wrong_credentials_are_told_and_right_ones_work(rtsp: None, caplog: pytest.LogCaptureFixture) -> None:
    secret = "p@ss/w%rd:"
    with CameraProcess({"user": "admin", "password": secret}, {"mount": "/a", "fps": FPS}) as process, Rig() as rig:
        right = rig.watch("right", f"rtsp://admin:p%40ss%2Fw%25rd%3A@127.0.0.1:{process.port}/a")
        wrong = rig.watch("wrong", f"rtsp://admin:guessp%40ss%2Fw%25rd%3A@127.0.0.1:{process.port}/a")
        right.wait_for_frames(5)
        wrong.wait(lambda w: w.state == "reconnecting", PATIENT_S)
    reasons = " ".join(state.reason for _, state in wrong.states)
    assert "refuses the user or password" in reasons
    assert wrong.count == 0
    for text in (reasons, caplog.text, str(right.breaks), str(wrong.gaps)):
        assert "w%rd" not in text
        assert "w%25rd" not in text


def test_a_frozen_picture_with_running_time_is_noticed(rtsp: None) -> None:
    with CameraProcess({"mount": "/a", "fps": FPS}) as process, Rig() as rig:
        camera = rig.watch("gate", f"rtsp://127.0.0.1:{process.port}/a", make_watch=lambda: Watch({"frozen": 1.0}))
        camera.wait_for_frames(10)
        process.ask(freeze="/a", on=True)
        camera.wait(lambda w: "frozen" in w.said(), PATIENT_S)
        process.ask(freeze="/a", on=False)
        camera.wait(lambda w: w.said()[-1] == "seeing", PATIENT_S)
    assert camera.state == "ended"
    assert len(camera.breaks) == 1


def test_the_stop_is_heard_in_every_state_within_three_seconds(cameras: CameraProcess, network: Network) -> None:
    """Of the time that this process gets to live; each of them is willing to wait for twenty."""
    live, silent, away = (network.proxy(lambda: cameras.port) for _ in range(3))
    silent.faults.silent = True
    away.refuse(True)
    patient = {"open_timeout": 20.0, "read_timeout": 20.0}
    with Rig() as rig:
        for name, proxy in (("silent", silent), ("away", away)):
            rig.watch(name, proxy.url("/h264"), config=patient)
        rig.watch("live", live.url("/h264"), config=patient).wait_for_frames(3)
        with OwnTime() as own:
            rig.group.stop()
            assert rig.group.wait(19.0)
    assert own.seconds < 3.0


def test_nothing_is_left_behind(cameras: CameraProcess, network: Network) -> None:
    """Threads, those of the decoders too, and open files after some reconnects are those of one."""
    proxy = network.proxy(lambda: cameras.port)
    process = psutil.Process()

    def threads() -> int:
        return sum(t.name.startswith(("read:", "produce:", "consume:")) for t in threading.enumerate())

    with Rig() as rig:
        camera = rig.watch("gate", proxy.url("/h264"), config={"backoff": 0.05, "backoff_max": 0.1})
        files: list[int] = []
        native: list[int] = []
        for _ in range(6):
            camera.wait_for_frames(2)
            files.append(process.num_fds())
            native.append(process.num_threads())
            assert threads() == 3
            proxy.cut(reset=True)
            camera.wait(lambda w: w.state == "reconnecting", PATIENT_S)
    assert max(files[2:]) <= files[1] + 1, files
    assert max(native[2:]) <= native[1] + 2, f"decoders wait for the garbage collector: {native}"
    assert threads() == 0
