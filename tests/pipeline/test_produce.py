"""Producer: frames numbered and timed over every break, each word in its place, one end, and the account closed."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streampose.errors import PermanentSourceError, TransientSourceError
from streampose.messages import Break, CameraState, End, Frame, Gap, Image
from streampose.pipeline.keeper import KeepOptions
from streampose.sources.base import Corrupt
from streampose.sources.open import open_source
from tests.pipeline.scripted import FAST, STEP_S, ScriptedSource, end, frames, gaps, picture, produce, states

RECORDING = KeepOptions()


def test_a_recording_gives_every_picture_once_and_then_its_end() -> None:
    said, _, ledger = produce(lambda: ScriptedSource([20], live=False), RECORDING)
    assert [f.index for f in frames(said)] == list(range(20))
    assert [f.time_s for f in frames(said)] == pytest.approx([n * STEP_S for n in range(20)])
    assert [f.pts for f in frames(said)] == list(range(20))
    assert {f.segment for f in frames(said)} == {0}
    assert states(said) == ["connecting", "live", "ended"]
    assert gaps(said) == []
    assert end(said).error is None
    assert ledger.counts.decoded == 20


def test_the_break_stands_before_the_first_frame_of_its_segment() -> None:
    said, _, _ = produce(lambda: ScriptedSource([3]), until=lambda s: len(frames(s)) >= 9)
    segments: list[int] = []
    for message in said:
        if isinstance(message, Break):
            segments.append(message.segment)
        elif isinstance(message, Frame):
            assert message.segment == segments[-1]
    assert segments == list(range(len(segments)))
    assert len(segments) >= 3
    assert [f.index for f in frames(said)] == list(range(len(frames(said)))), "index never restarts"


def test_time_goes_on_over_a_reconnect_by_what_passed() -> None:
    keep = replace(FAST, backoff_first_s=0.2, backoff_cap_s=0.2)
    steps = [1, STEP_S, 1, 0.05]
    said, producer, _ = produce(lambda: ScriptedSource(steps), keep, until=lambda s: len(frames(s)) >= 6)
    seen = frames(said)
    for before, after in itertools.pairwise(seen):
        if after.segment != before.segment:
            assert after.time_s - before.time_s == pytest.approx(after.arrival_s - before.arrival_s, abs=1e-3)
        else:
            assert after.time_s - before.time_s == pytest.approx(STEP_S)
    cuts = [gap for gap in gaps(said) if gap.cause == "disconnected"]
    assert len(cuts) >= 2
    firsts = {f.time_s for f in seen if f.index and seen[f.index - 1].segment != f.segment}
    assert {gap.end_s for gap in cuts} >= firsts
    assert producer.keeper.runs == 3


def test_what_a_connection_brings_at_once_does_not_add_up_over_reconnects() -> None:
    """A camera sends the last of what it kept to everybody who connects; so that much of every outage was not missed."""
    keep, burst, connections = replace(FAST, stall_s=5.0, give_up_s=10.0), 16, 5
    said, _, _ = produce(
        lambda: ScriptedSource([burst, 0.35]), keep, until=lambda s: len(frames(s)) >= burst * connections
    )
    first, last = frames(said)[0], frames(said)[-1]
    assert last.segment == connections - 1
    ahead_s = (last.time_s - first.time_s) - (last.arrival_s - first.arrival_s)
    assert ahead_s < 1.5 * (burst - 1) * STEP_S, "by what one connection brings, however many there were"
    assert len([gap for gap in gaps(said) if gap.cause == "disconnected"]) == connections - 1


def test_time_does_not_go_back_where_a_stall_ends_in_a_loss_after_pictures_that_came_at_once() -> None:
    keep = replace(FAST, stall_s=0.25, give_up_s=0.7)
    said, _, _ = produce(lambda: ScriptedSource([41, 60.0]), keep, until=lambda s: len(frames(s)) >= 42)
    assert states(said)[:5] == ["connecting", "live", "stalled", "reconnecting", "live"]
    times = [item.end_s if isinstance(item, Gap) else item.time_s for item in said if not isinstance(item, Break | End)]
    assert times == sorted(times)
    assert all(one.end_s == next_one.start_s for one, next_one in itertools.pairwise(gaps(said)))


def test_a_camera_absent_at_the_start_is_awaited_and_the_wait_is_a_gap() -> None:
    tries: list[float] = []

    def source() -> ScriptedSource:
        tries.append(time.monotonic())
        late = TransientSourceError("rtsp://gate refuses the connection", "refused")
        return ScriptedSource([5], opening=late if len(tries) < 4 else None)

    said, _, _ = produce(source, until=lambda s: len(frames(s)) >= 5)
    first = frames(said)[0]
    gap = gaps(said)[0]
    assert (gap.cause, gap.start_s, gap.end_s) == ("disconnected", 0.0, first.time_s)
    assert first.time_s >= tries[3] - tries[0]
    assert states(said)[:3] == ["connecting", "reconnecting", "live"], "a state is said once, not once a try"


def test_a_camera_in_whose_place_a_recording_is_sent_is_waited_for() -> None:
    """A live playlist that got its end: it was seen already. Another clip of a relay is not what is watched, either."""
    live = ScriptedSource([6, TransientSourceError("rtsp://gate ended the stream", "ended")])
    replay = [ScriptedSource([6], live=False), ScriptedSource([], live=False), ScriptedSource([OSError()], live=False)]
    left = iter([live, *replay, ScriptedSource([5, 60.0])])
    said, producer, _ = produce(lambda: next(left), until=lambda s: len(frames(s)) >= 11)
    assert producer.keeper.runs == 5
    assert [f.segment for f in frames(said)] == [0] * 6 + [1] * 5
    reasons = [item.reason for item in said if isinstance(item, CameraState) and item.state == "reconnecting"]
    assert reasons == ["rtsp://gate ended the stream", "sends a recording now; asked again until it is live"]
    (away,) = gaps(said)
    assert (away.cause, away.start_s, away.end_s) == ("disconnected", frames(said)[5].time_s, frames(said)[6].time_s)
    assert all(source.closed for source in replay)


def test_a_stall_that_ends_in_a_loss_is_told_as_both() -> None:
    said, _, _ = produce(lambda: ScriptedSource([1, 60.0]), until=lambda s: len(frames(s)) >= 2)
    assert states(said)[:5] == ["connecting", "live", "stalled", "reconnecting", "live"]
    stalled, cut = gaps(said)[:2]
    assert (stalled.cause, cut.cause) == ("stalled", "disconnected")
    assert stalled.start_s == frames(said)[0].time_s
    assert stalled.end_s == cut.start_s
    assert cut.end_s == frames(said)[1].time_s
    assert stalled.end_s - stalled.start_s >= FAST.give_up_s


def test_a_silence_made_up_for_by_late_pictures_is_no_gap() -> None:
    """A network that held the pictures back has lost none: their own clock says so."""
    said, _, _ = produce(lambda: ScriptedSource([3, 0.3, 40, 60.0]), until=lambda s: len(frames(s)) >= 43)
    assert "stalled" in states(said)
    assert states(said)[states(said).index("stalled") + 1] == "live"
    assert gaps(said) == []


def test_a_camera_that_goes_on_where_it_stood_still_lives() -> None:
    """A relay whose process was stopped: pictures come again, their clock lacks nothing, and so they stay behind."""
    steps = [3, 0.3, *[1, 0.13] * 6, 60.0]
    said, _, _ = produce(lambda: ScriptedSource(steps), until=lambda s: len(frames(s)) >= 9)
    assert states(said)[:4] == ["connecting", "live", "stalled", "live"]
    times = [item.time_s for item in said if isinstance(item, CameraState)]
    assert times == sorted(times)
    assert frames(said)[8].time_s < times[2]


def test_pictures_that_come_out_as_a_silent_connection_fails_are_no_sign_of_life() -> None:
    """A parser holds the last one until the next begins, or until nothing more comes."""
    held = picture(3)  # which came when it was taken
    fails = TransientSourceError("did not answer in time", kind="timeout")
    said, _, _ = produce(lambda: ScriptedSource([3, 0.3, held, fails]), until=lambda s: "reconnecting" in states(s))
    assert states(said)[:4] == ["connecting", "live", "stalled", "reconnecting"]
    assert len(frames(said)) == 4
    times = [item.time_s for item in said if isinstance(item, CameraState)]
    assert times == sorted(times)
    stalled, cut = gaps(said)[:2]
    assert (stalled.cause, cut.cause) == ("stalled", "disconnected")
    assert stalled.start_s == frames(said)[-1].time_s


def test_a_hole_in_the_pictures_own_time_is_a_gap() -> None:
    hole = picture(0, time_s=10.0)
    said, _, _ = produce(lambda: ScriptedSource([10, hole, 60.0]), until=lambda s: len(frames(s)) >= 11)
    gap = gaps(said)[0]
    assert (gap.cause, gap.start_s, gap.end_s) == ("stalled", pytest.approx(9 * STEP_S), 10.0)


def test_what_a_slow_camera_sends_at_once_first_makes_no_holes_of_its_usual_steps() -> None:
    """Three pictures that the server had kept, then two a second, told apart by their arrival alone."""
    times = [0.002 * number for number in range(4)] + [0.5 * number for number in range(1, 21)]
    slow = [picture(number, time_s=time_s) for number, time_s in enumerate(times)]
    said, _, _ = produce(lambda: ScriptedSource([*slow, 60.0]), until=lambda s: len(frames(s)) >= len(slow))
    assert [gap.detail for gap in gaps(said)] == []


def test_damaged_pictures_are_counted_and_their_time_is_a_gap() -> None:
    bad = [Corrupt("picture 2 is damaged", 2 * STEP_S), Corrupt("two more", 3 * STEP_S, frames=2)]
    script = [picture(0), picture(1), *bad, picture(5), picture(6)]
    said, _, ledger = produce(lambda: ScriptedSource(script, live=False), RECORDING)
    (gap,) = gaps(said)
    assert (gap.cause, gap.frames, gap.detail) == ("corrupt", 3, "picture 2 is damaged")
    assert (gap.start_s, gap.end_s) == (pytest.approx(2 * STEP_S), pytest.approx(5 * STEP_S))
    assert (ledger.counts.decoded, ledger.counts.corrupt) == (7, 3)
    assert [f.index for f in frames(said)] == [0, 1, 5, 6]


def test_damage_after_a_silence_begins_where_the_last_picture_was_by_both_clocks() -> None:
    script = [picture(0), picture(1), 0.1, Corrupt("damaged", STEP_S), picture(60), 60.0]
    said, _, _ = produce(lambda: ScriptedSource(script), until=lambda s: len(frames(s)) >= 3)
    gap, seen = gaps(said)[0], frames(said)
    assert (gap.cause, gap.start_s, gap.wall_start_s) == ("corrupt", seen[1].time_s, seen[1].wall_s)
    assert (gap.end_s, gap.wall_end_s) == (seen[2].time_s, seen[2].wall_s)


def test_a_camera_that_sends_nothing_but_damage_is_told_of_while_it_does() -> None:
    ended = TransientSourceError("rtsp://gate sends no picture that can be decoded", "codec")
    said, _, ledger = produce(
        lambda: ScriptedSource([Corrupt("damaged", 0.0), ended]), until=lambda s: len(gaps(s)) >= 8, within_s=10.0
    )
    told = gaps(said)
    assert frames(said) == []
    assert [gap.cause for gap in told[:4]] == ["corrupt", "disconnected", "corrupt", "disconnected"]
    assert all(before.end_s == after.start_s for before, after in itertools.pairwise(told))
    assert sum(gap.frames or 0 for gap in told) == ledger.counts.corrupt


def test_what_is_cut_off_a_recording_is_a_gap_to_where_it_would_have_ended() -> None:
    cut = Corrupt("the film is cut", STEP_S, frames=3, until_s=4 * STEP_S)
    said, _, ledger = produce(lambda: ScriptedSource([picture(0), picture(1), cut], live=False), RECORDING)
    (gap,) = gaps(said)
    assert (gap.start_s, gap.end_s, gap.frames) == (pytest.approx(STEP_S), pytest.approx(4 * STEP_S), 3)
    assert (ledger.counts.decoded, ledger.counts.corrupt) == (5, 3)
    assert states(said)[-1] == "ended"


def test_every_bad_picture_of_a_folder_is_named_and_a_damaged_video_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = np.full((12, 16, 3), 90, np.uint8)
    for name in ("a.png", "d.png"):
        assert cv2.imwrite(str(tmp_path / name), good)
    (tmp_path / "b.png").write_bytes(b"")
    (tmp_path / "c.jpg").write_text("no picture")
    said, _, ledger = produce(lambda: open_source(str(tmp_path)), RECORDING)  # type: ignore[arg-type, return-value]
    assert (len(frames(said)), ledger.counts.corrupt) == (2, 2)
    assert [(gap.start_s, gap.end_s) for gap in gaps(said)] == [(1.0, 3.0)]
    warned = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert [line.split(": ")[1].split(" cannot")[0] for line in warned] == ["b.png", "c.jpg"]
    caplog.clear()
    script = [picture(0), Corrupt("picture 1 is damaged", STEP_S), picture(2), Corrupt("and 3", 3 * STEP_S), picture(4)]
    produce(lambda: ScriptedSource(script, live=False), RECORDING)
    warned = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warned == ["gate: picture 1 is damaged; the record says where pictures are missing"]


def test_a_folder_whose_first_picture_is_torn_begins_with_it(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(b"no picture")
    assert cv2.imwrite(str(tmp_path / "1.png"), np.full((12, 16, 3), 90, np.uint8))
    said, _, _ = produce(lambda: open_source(str(tmp_path)), RECORDING)  # type: ignore[arg-type, return-value]
    assert [frame.time_s for frame in frames(said)] == [1.0]
    assert [(gap.cause, gap.start_s, gap.end_s) for gap in gaps(said)] == [("corrupt", 0.0, 1.0)]


def test_a_change_of_size_or_of_the_clock_begins_a_segment() -> None:
    script = [picture(0), picture(1, size=(32, 24)), picture(2, size=(32, 24), jump="clock of the source jumped")]
    said, _, _ = produce(lambda: ScriptedSource(script, live=False), RECORDING)
    breaks = [message for message in said if isinstance(message, Break)]
    assert [f.segment for f in frames(said)] == [0, 1, 2]
    assert [(b.info.width, b.info.height) for b in breaks] == [(16, 12), (32, 24), (32, 24)]
    assert [b.reason for b in breaks] == ["start", "size changed to 32x24", "clock of the source jumped"]


def test_a_recording_that_fails_ends_in_state_failed_after_its_last_frame() -> None:
    broken = PermanentSourceError("film.mp4 is damaged at 0.06 s")
    said, _, _ = produce(lambda: ScriptedSource([3, broken], live=False), RECORDING)
    assert len(frames(said)) == 3
    assert states(said)[-1] == "failed"
    assert end(said).error == "film.mp4 is damaged at 0.06 s"


def test_a_bug_ends_this_camera_only_and_keeps_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> ScriptedSource:
        raise ZeroDivisionError("by zero")

    with caplog.at_level(logging.ERROR):
        said, _, _ = produce(broken, RECORDING)
    assert end(said).error == "bug: ZeroDivisionError: by zero"
    assert "Traceback" in caplog.text


def test_what_was_missed_when_the_watch_was_stopped_is_told() -> None:
    refused = TransientSourceError("rtsp://gate refuses the connection", "refused")
    said, _, _ = produce(lambda: ScriptedSource([], opening=refused), until=lambda s: "reconnecting" in states(s))
    (gap,) = gaps(said)
    assert gap.cause == "disconnected"
    assert states(said)[-1] == "ended"
    assert end(said).error is None


class Counting:
    """A watch that goes blind at its third picture."""

    def __init__(self) -> None:
        self.seen = 0
        self.resets = 0

    def see(self, image: Image, time_s: float) -> list[tuple[Any, str]]:
        self.seen += 1
        return [("dark", "mean grey 3")] if self.seen == 3 else []

    def reset(self) -> None:
        self.resets += 1


def test_blindness_is_told_before_the_frame_that_showed_it_and_only_of_cameras() -> None:
    watch = Counting()
    said, _, _ = produce(
        lambda: ScriptedSource([5, 60.0]), make_watch=lambda: watch, until=lambda s: len(frames(s)) >= 5
    )
    (dark,) = [m for m in said if isinstance(m, CameraState) and m.state == "dark"]
    after = next(m for m in said[said.index(dark) :] if isinstance(m, Frame))
    assert (after.index, after.time_s) == (2, dark.time_s)
    assert watch.resets == 1
    unused = Counting()
    produce(lambda: ScriptedSource([5], live=False), RECORDING, make_watch=lambda: unused)
    assert unused.seen == 0


def test_a_latest_channel_loses_frames_only_into_the_account() -> None:
    said, _, ledger = produce(
        lambda: ScriptedSource([200, 60.0]),
        policy="latest",
        until=lambda s: ledger_sum(s) >= 200 or len(frames(s)) >= 150,
    )
    counts = ledger.counts
    assert counts.decoded == len(frames(said)) + sum(counts.dropped.values()) + counts.corrupt


def ledger_sum(said: list[Any]) -> int:
    return len(frames(said)) + sum(gap.frames or 0 for gap in gaps(said))


STEP = st.one_of(
    st.integers(1, 4),
    st.just(0.2),
    st.builds(lambda n, time_s: Corrupt("damaged", time_s, n), st.integers(1, 3), st.sampled_from([0.0, STEP_S, 0.1])),
    st.just(TransientSourceError("cut", "ended")),
    st.just(ValueError("bug")),
)


@settings(max_examples=25, deadline=None)
@given(
    scripts=st.lists(st.lists(STEP, max_size=4), min_size=1, max_size=4), policy=st.sampled_from(["lossless", "latest"])
)
def test_whatever_a_camera_does_the_account_closes(scripts: list[list[Any]], policy: Any) -> None:
    made = iter(scripts)
    stop = threading.Event()

    def source() -> ScriptedSource:
        steps = next(made, None)
        if steps is None:
            stop.set()
        return ScriptedSource([picture(0)] if steps is None else steps)

    keep = replace(FAST, refused_backoff_s=0.001, backoff_first_s=0.001, backoff_cap_s=0.001)
    said, _, ledger = produce(source, keep, policy=policy, until=lambda _: stop.is_set())
    seen, told, counts = frames(said), gaps(said), ledger.counts
    assert counts.decoded == len(seen) + sum(counts.dropped.values()) + counts.corrupt
    assert sum(g.frames or 0 for g in told if g.cause == "corrupt") == counts.corrupt
    times = [f.time_s for f in seen]
    assert all(after > before for before, after in itertools.pairwise(times))
    assert states(said)[-1] == "ended"
    assert end(said).error is None
    # Seconds: what lies between two frames that follow each other without a gap was seen, all else is a gap.
    spans = sorted((g.start_s, g.end_s) for g in told)
    for before, after in itertools.pairwise(spans):
        assert before[1] <= after[0] + 1e-9, "gaps overlap"
    instants = times + [t for span in spans for t in span]
    if instants:
        edges = sorted(set(instants))
        covered = [(a + b) / 2 for a, b in itertools.pairwise(edges)]
        missed = sum(b - a for a, b in spans)
        seen_s = sum(
            b - a
            for middle, a, b in zip(covered, edges, edges[1:], strict=False)
            if not any(start <= middle <= stop_s for start, stop_s in spans)
        )
        assert seen_s + missed == pytest.approx(edges[-1] - edges[0])
        assert np.isfinite(seen_s)
