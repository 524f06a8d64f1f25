"""The clock of one run of a source: what the camera said about time, made into one time that only goes forward.

Pure: stamps and arrival times in, times out. Nothing is read from the machine's clocks here.

Rules, in this order, for the presentation stamp (PTS) of each picture in display order:

* no stamp: the time is the last one plus what passed (by arrival for a live source, by the usual step for a recording);
* a small step forward is believed; "small" for a live source means that the camera's clock did not run ahead of ours
  by more than `ahead_s` since the picture before (bursts after a stall or at connect stay inside that), and that the picture
  does not come sooner after its time than any of the last half minute (no network can do that), for a recording below an
  hour or a hundred usual steps;
* a step that is small once a counter's period (32 or 33 bits of the time base: FLV, RTP, MPEG-TS) is added is a wrap;
* anything else, with the first picture of another size, is the clock of another encoder: time is anchored anew;
* a step back of less than a second, or none, is a stuttering stamp: it is bridged, however late its picture comes by no more
  than one and a half usual steps, and time goes on until the stamps have caught up; where they stood still or were set back
  for more than two pictures, they go on from there instead;
* anything else is a suspect: its picture is bridged. Where the next picture continues from the suspect, the source's
  clock was set: time is anchored anew to arrival and the break is told. Where it does not, the stamp was a single
  absurd one and nothing has happened.

Between breaks time follows the camera's clock, not ours: a drift of some hundred ppm is no error of the pictures.

The wall clock of a picture is `time_s` plus an offset, from the best witness there is: RTCP sender reports (camera's
NTP clock), the container (creation time), or arrival: the least delayed picture of the last half minute tells when
the others were taken, for the network can only delay. Stamps that run slow make every picture come later than the one
before: what rises steadily over the whole of that time is theirs, and no delay. Nor is it the network's what a picture
waited because nobody took those before it: that is taken off its arrival.

How old a picture is (`captured_s`) is told by arrival alone, for the camera's NTP clock may be wrong by any amount.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations
from statistics import median

from streampose.messages import WallSource

STUTTER_S = 1.0  # a stamp this little before its predecessor is noise, not a new clock
RECORDING_STEP_S = 3600.0  # a recording may skip an hour (motion-triggered cameras do) without having changed its clock
RECORDING_STEPS = 100.0  # ... or this many usual steps (time lapse)
WRAP_BITS = (32, 33)  # FLV and RTP count in 32 bits, MPEG-TS (ISO/IEC 13818-1, 2.4.3.7) in 33
MIN_PERIOD_S = 3600.0  # no counter of any protocol wraps sooner; nanosecond time bases would seem to
STUTTER_STEPS = 1.5  # usual steps that a stuttering stamp takes at most: what comes later than that was delayed
STEPS_AHEAD = 2.0  # usual steps that bridged pictures may be ahead of stamps, which then catch up
MIN_STEP_S = 1e-4  # two pictures never share a time
BURST_PICTURES = 25  # what libav kept while it looked for the stream's facts comes at once, often unstamped
ARRIVAL_SECONDS = (
    30  # with pictures: long enough to meet an undelayed one, short enough to follow a network that changed
)
DRIFT_AFTER_S = 15.0  # so long pictures must have come later and later before that is the stamps' rate, and no backlog
ARRIVAL_SIGMA_S = 0.1  # encoder and network delay nobody can see from here; 85 ms is typical of RTSP cameras
SEGMENTED_SIGMA_S = 2.0  # ... and the time until a segment is whole and found in the playlist
SETTLE_S = 2.0  # where no picture came less delayed for so long, those that waited at the beginning are through
START_SIGMA_S = 0.5  # ... and before, arrival may be late by this, by what opening took,
SEGMENTED_START_S = 10.0  # or by the three segments that a playlist is begun with
CLOCK_DRIFT = 1e-4  # of a camera's clock that is cheap
RTCP_SIGMA_S = 0.02  # NTP on a local network
RTCP_AGREE_S = 0.5  # reports that differ more are of two opinions
RTCP_VOTES = 3  # so many reports in a row of the new opinion win
RTCP_EARLY_S = 2.0  # a capture time this far in our future, or
RTCP_LATE_S = 60.0  # this far in the past, is a camera whose clock is not set: no witness
RTCP_KEPT_S = 60.0  # so long a report stands for those after it: a camera's stamps and its NTP clock drift apart
CONTAINER_SIGMA_S = 1.0  # creation times are whole seconds


@dataclass(frozen=True, slots=True)
class Stamp:
    """The times of one picture; fields as in `messages.Frame`. `jump` is why a new segment begins, or empty."""

    time_s: float
    wall_s: float | None
    wall_source: WallSource
    wall_uncertainty_s: float | None
    captured_s: float | None
    jump: str = ""


class SourceClock:
    """Turns the stamps of one run into `Stamp`s whose `time_s` starts at 0, where the stream begins, and strictly grows.

    `live`: arrival times mean something. `nominal_step_s`: the step to assume before one was seen (None for a live source
    that never has stamps: arrival is all there is). `ahead_s`: how far a
    live source may run ahead of arrival from one picture to the next (segmented protocols deliver in bursts, so they need
    more). `opening_s`: how long the pictures of a live source may have waited while it was opened. `segmented`: it delivers
    whole segments. `start_wall_s`: when the recording began, seconds since the Unix epoch, where its container says so.
    """

    def __init__(
        self,
        *,
        live: bool,
        nominal_step_s: float | None = None,
        ahead_s: float = 10.0,
        opening_s: float = 0.0,
        segmented: bool = False,
        start_wall_s: float | None = None,
    ) -> None:
        self._live = live
        self._ahead_s = ahead_s
        self._start_wall_s = start_wall_s
        self._nominal_step_s = nominal_step_s
        self._usual_step_s = nominal_step_s if nominal_step_s and nominal_step_s > 0 else 0.04
        self._steps_seen = 0
        self._last: tuple[float, float] | None = None  # (time_s, arrival_s) of the last picture
        self._good: tuple[float, float, float] | None = (
            None  # (unwrapped pts_s, time_s, arrival_s) of the last believed
        )
        self._good_count = 0  # believed stamps since the anchor: one alone is no authority
        self._between = 0  # pictures bridged since then
        self._offset_s = 0.0  # time_s = unwrapped pts_s + offset
        self._wrapped_s = 0.0  # whole counter periods passed
        self._begins_s = float("inf")  # raw pts_s
        self._suspect: tuple[float, float] | None = None  # (raw pts_s, arrival_s)
        # (arrival_s, arrival_s - time_s) of the least delayed picture of each second
        self._arrivals: deque[tuple[float, float]] = deque(maxlen=ARRIVAL_SECONDS)
        self._second_s = 0.0  # when the last of these seconds began
        self._drift = 0.0  # seconds by which arrival - time grows in a second, as the stamps run slow
        self._undelayed_s = 0.0  # arrival_s - time_s of a picture that were not delayed, now
        self._kept_s = 0.0  # how much later the last picture was read as those before it were not taken
        self._blocked_at_s = 0.0  # arrival_s of the last picture before which nothing was read for a while
        self._free_s = 0.0  # arrival_s of the last picture of which that is hardly anything
        self._first_offset_s = 0.0  # arrival_s - time_s of the first picture
        self._fell: tuple[float, float] = (
            0.0,
            0.0,
        )  # (arrival_s, value) as the undelayed time last became clearly less
        self._settled = False
        self._segmented = segmented
        self._arrival_sigma_s = SEGMENTED_SIGMA_S if segmented else ARRIVAL_SIGMA_S
        self._start_sigma_s = max(opening_s, SEGMENTED_START_S if segmented else START_SIGMA_S)
        self._lateness_s = 0.0  # mean of how much later than the best picture the others come
        self._rtcp_s: float | None = None  # wall_s - time_s, by sender reports
        self._rtcp_at_s = 0.0  # time_s of the last report that agreed
        self._rtcp_votes: list[float] = []
        self._refused_since_s: float | None = None  # time_s of the first report on end that was too far off
        self.wraps = 0
        self.bridged = 0

    def stamp(
        self,
        pts: int | None,
        time_base: Fraction | None,
        arrival_s: float,
        arrival_wall_s: float,
        next_pts: int | None = None,
        *,
        resized: bool = False,
        blocked_s: float = 0.0,
    ) -> Stamp:
        """The times of the next picture, given its stamp and when it came (monotonic seconds and Unix seconds).

        `next_pts` is the stamp after this one, where the source can look ahead: a stamp beyond its successor is absurd.
        `resized`: the picture has another size than the one before, so that a new segment begins whatever its stamp.
        `blocked_s`: for how long nothing was read before it, as nobody took what there was.
        """
        jump = ""
        if pts is None or time_base is None or self._absurd(pts, next_pts, float(time_base)):
            time_s = self._bridge(arrival_s)
        else:
            time_s, jump = self._believe(float(pts * time_base), float(time_base), arrival_s, resized)
        if self._last is not None:
            time_s = max(time_s, self._last[0] + MIN_STEP_S)
        self._last = (time_s, arrival_s)
        if self._live:
            self._witness_arrival(time_s, arrival_s, blocked_s)
        return self._wall(time_s, arrival_s, arrival_wall_s, jump)

    def report(self, pts: int | None, time_base: Fraction | None, wall_s: float, arrival_wall_s: float) -> None:
        """Take a capture time (`wall_s`, Unix seconds) that the source gave for the packet with this stamp.

        To be called before `stamp` of the packet's own pictures. What is far from arrival is not believed, and an
        opinion is changed only by several reports in a row. Where none is believed for `RTCP_KEPT_S`, arrival is witness.
        """
        if pts is None or time_base is None or self._good is None:
            return
        if not believable(wall_s - arrival_wall_s):
            if self._refused_since_s is None:
                self._refused_since_s = self._good[1]
            return
        self._refused_since_s = None
        at_s = self._time_of(pts, time_base)
        if at_s is None:
            return
        offset_s = wall_s - at_s
        if self._rtcp_s is None or abs(offset_s - self._rtcp_s) <= RTCP_AGREE_S:
            self._rtcp_s, self._rtcp_at_s = offset_s, at_s
            self._rtcp_votes.clear()
            return
        if self._rtcp_votes and abs(offset_s - self._rtcp_votes[-1]) > RTCP_AGREE_S:
            self._rtcp_votes.clear()
        self._rtcp_votes.append(offset_s)
        if len(self._rtcp_votes) >= RTCP_VOTES:
            self._rtcp_s, self._rtcp_at_s = offset_s, at_s
            self._rtcp_votes.clear()

    def wall_of(
        self, pts: int | None, time_base: Fraction | None, arrival_s: float, arrival_wall_s: float
    ) -> float | None:
        """When what has this stamp, and comes now, was taken (Unix seconds), by what is known so far; None: nobody knows."""
        time_s = self._time_of(pts, time_base)
        if not self._live:
            return (
                None if self._start_wall_s is None else self._start_wall_s + (self.next_s if time_s is None else time_s)
            )
        if time_s is None:
            return arrival_wall_s
        return self._wall(time_s, arrival_s, arrival_wall_s, "").wall_s

    def _time_of(self, pts: int | None, time_base: Fraction | None) -> float | None:
        """The time that the stamp of a packet stands for, None where it is far from those of the pictures."""
        if pts is None or time_base is None or self._good is None:
            return None
        limit_s = self._ahead_s if self._live else RECORDING_STEP_S
        step_s = float(pts * time_base) + self._wrapped_s - self._good[0]
        if abs(step_s) > limit_s:
            step_s = self._unwrap(step_s, float(time_base), limit_s)[0]
            if abs(step_s) > limit_s:
                return None
        return self._good[0] + step_s + self._offset_s

    def begin(self, pts: int | None, time_base: Fraction | None) -> None:
        """Take the stamp of a packet before the first picture: the least of them is where a recording begins."""
        if not self._live and pts is not None and time_base is not None:
            self._begins_s = min(self._begins_s, float(pts * time_base))

    @property
    def refuses_reports(self) -> bool:
        """Whether all reports have been too far from arrival for so long that none is believed."""
        return self._refused_since_s is not None and self.time_s - self._refused_since_s > RTCP_KEPT_S

    @property
    def time_s(self) -> float:
        """`time_s` of the last picture, 0 before the first."""
        return self._last[0] if self._last is not None else 0.0

    @property
    def next_s(self) -> float:
        """Where the picture after the last is to be expected, 0 before the first."""
        return self._last[0] + self._usual_step_s if self._last is not None else 0.0

    def _first(self, raw_s: float) -> float:
        """The time of the first picture: a recording whose beginning is damaged begins before it."""
        lead_s = raw_s - self._begins_s
        return lead_s if 0.0 < lead_s <= RECORDING_STEP_S else 0.0

    def _bridge(self, arrival_s: float, most_s: float = float("inf")) -> float:
        """The time of a picture whose stamp says nothing: of a live source by arrival, at most `most_s` after the last."""
        if self._last is None:
            return 0.0
        self.bridged += 1
        self._between += 1
        if not self._live:
            return self._last[0] + self._usual_step_s
        passed_s = arrival_s - self._last[1]
        if self._good is None:
            self._usual_step_s += 0.05 * (passed_s - self._usual_step_s)
        if self._good is None and self._nominal_step_s is not None and self._between <= BURST_PICTURES:
            passed_s = max(passed_s, self._nominal_step_s)
        return self._last[0] + min(passed_s, most_s)

    def _absurd(self, pts: int, next_pts: int | None, tick_s: float) -> bool:
        """Whether the stamp leaps ahead and its successor is back where it should be."""
        if next_pts is None or self._good is None or next_pts >= pts:
            return False
        before_s, next_s = self._good[0] - self._wrapped_s, next_pts * tick_s
        return before_s < next_s <= before_s + 2 * STUTTER_S + 3 * self._usual_step_s

    def _believe(self, raw_s: float, tick_s: float, arrival_s: float, resized: bool) -> tuple[float, str]:
        """The time that a stamp stands for, and why the clock broke, if it did."""
        if self._good is None:
            time_s = self._first(raw_s) if self._last is None else self._bridge(arrival_s)
            return self._anchor(raw_s, time_s, arrival_s), ""
        pts_s, _, good_arrival_s = self._good
        elapsed_s = arrival_s - good_arrival_s
        step_s, wrapped_s = self._unwrap(raw_s + self._wrapped_s - pts_s, tick_s, self._limit(elapsed_s))
        if 0.0 < step_s <= self._limit(elapsed_s) and not self._too_early(pts_s + step_s + self._offset_s, arrival_s):
            self._suspect = None
            return self._advance(pts_s + step_s, step_s, wrapped_s, arrival_s), ""
        if resized:
            return self._anchor(raw_s, self._bridge(arrival_s), arrival_s), ""
        if -STUTTER_S < step_s <= 0.0 and not self._young():
            self._suspect = None
            return self._bridge(arrival_s, STUTTER_STEPS * self._usual_step_s), ""
        return self._doubt(raw_s, step_s, arrival_s)

    def _advance(self, pts_s: float, step_s: float, wrapped_s: float, arrival_s: float) -> float:
        assert self._last is not None
        if wrapped_s:
            self._wrapped_s += wrapped_s
            self.wraps += 1
        time_s = pts_s + self._offset_s
        ahead_s = self._last[0] - time_s
        if ahead_s >= 0.0 and self._stood_still(step_s, ahead_s):  # bridging overtook the stamps: go on from here
            time_s = self._bridge(arrival_s)
            offset_s = time_s - pts_s
            if self._rtcp_s is not None:  # the stamps still mean the same instants
                self._rtcp_s += self._offset_s - offset_s
            self._offset_s = offset_s
        self._good = (pts_s, time_s, arrival_s)
        self._good_count += 1
        self._steps_seen += 1
        weight = max(0.05, 1.0 / self._steps_seen)
        self._usual_step_s += weight * (step_s / (1 + self._between) - self._usual_step_s)
        self._between = 0
        return time_s

    def _stood_still(self, step_s: float, ahead_s: float) -> bool:
        """Whether time is ahead because the stamps lost some, not because a bridged picture came late or the rate varies:
        those catch up. `step_s` from the last believed stamp, over the pictures bridged between."""
        most_s = STEPS_AHEAD * self._usual_step_s
        if not self._live:
            return ahead_s > most_s
        return ahead_s >= STUTTER_S or (1 + self._between) * self._usual_step_s - step_s > most_s

    def _doubt(self, raw_s: float, step_s: float, arrival_s: float) -> tuple[float, str]:
        time_s = self._bridge(arrival_s)
        if self._suspect is not None:
            suspect_s, suspect_arrival_s = self._suspect
            if 0.0 < raw_s - suspect_s <= self._limit(arrival_s - suspect_arrival_s):
                jump = "" if self._young() else f"clock of the source jumped by {step_s:+.3f} s"
                return self._anchor(raw_s, time_s, arrival_s), jump
        self._suspect = (raw_s, arrival_s)
        return time_s, ""

    def _anchor(self, raw_s: float, time_s: float, arrival_s: float) -> float:
        """From here on `raw_s` means `time_s`."""
        self._wrapped_s = 0.0
        self._offset_s = time_s - raw_s
        self._good = (raw_s, time_s, arrival_s)
        self._good_count = 1
        self._between = 0
        self._suspect = None
        self._rtcp_s = None  # reports speak of stamps, and the stamps mean other instants now
        self._rtcp_votes.clear()
        return time_s

    def _young(self) -> bool:
        return self._good_count < 2

    def _too_early(self, time_s: float, arrival_s: float) -> bool:
        """Whether a picture with that time came sooner after it than the least delayed of the others, by more than what
        stutters and a usual step: those that waited come one by one. At the beginning all may have waited; segments do."""
        if not self._settled or self._segmented:
            return False
        # Without regard to drift: a network that clogs up looks like one.
        least_s = min(offset_s for _, offset_s in self._arrivals)
        return arrival_s - time_s < least_s - STUTTER_S - self._usual_step_s

    def _limit(self, elapsed_s: float) -> float:
        if self._live:
            return max(elapsed_s, 0.0) + self._ahead_s
        usual_s = self._usual_step_s if self._steps_seen >= 2 else float("inf")
        return max(RECORDING_STEP_S, RECORDING_STEPS * usual_s)

    @staticmethod
    def _unwrap(step_s: float, tick_s: float, limit_s: float) -> tuple[float, float]:
        """The step with a counter's period added where that makes it small, and the period added (0: none)."""
        if step_s > 0.0:
            return step_s, 0.0
        for bits in WRAP_BITS:
            period_s = 2.0**bits * tick_s
            if period_s < MIN_PERIOD_S:
                continue
            if 0.0 < step_s + period_s <= min(limit_s, period_s / 16):
                return step_s + period_s, period_s
        return step_s, 0.0

    def _witness_arrival(self, time_s: float, arrival_s: float, blocked_s: float) -> None:
        best, offset_s = self._arrivals, arrival_s - time_s
        if not best:
            self._first_offset_s, self._fell = offset_s, (arrival_s, offset_s)
        else:
            if blocked_s > 0.0:
                self._blocked_at_s = arrival_s
            kept_s = self._kept_s + blocked_s if arrival_s - self._blocked_at_s <= ARRIVAL_SECONDS else 0.0
            self._kept_s = min(kept_s, max(offset_s - self._undelayed_at(arrival_s), 0.0))
            offset_s -= self._kept_s
        if not best or arrival_s - self._second_s >= 1.0:
            self._drift = _steady_rise(list(best))
            self._second_s = arrival_s
            best.append((arrival_s, offset_s))
        elif offset_s - best[-1][1] <= self._drift * (arrival_s - best[-1][0]):
            best[-1] = (arrival_s, offset_s)
        self._undelayed_s = self._undelayed_at(arrival_s)
        self._lateness_s += 0.05 * (offset_s - self._undelayed_s - self._lateness_s)
        if self._kept_s <= ARRIVAL_SIGMA_S:
            self._free_s = arrival_s
        if self._undelayed_s < self._fell[1] - ARRIVAL_SIGMA_S or self._free_s != arrival_s:
            self._fell = (arrival_s, self._undelayed_s)
        self._settled = self._settled or arrival_s - self._fell[0] >= SETTLE_S

    def _undelayed_at(self, arrival_s: float) -> float:
        """arrival_s - time_s of a picture that came then and was not delayed."""
        return min(offset_s + self._drift * (arrival_s - at_s) for at_s, offset_s in self._arrivals)

    def _arrival_uncertainty(self, arrival_s: float) -> float:
        """One sigma of the time of capture that arrival tells, in seconds."""
        if not self._settled:
            return max(self._start_sigma_s, self._first_offset_s - self._undelayed_s)
        return max(self._arrival_sigma_s, self._lateness_s) + CLOCK_DRIFT * (arrival_s - self._free_s)

    def _wall(self, time_s: float, arrival_s: float, arrival_wall_s: float, jump: str) -> Stamp:
        if not self._live:
            if self._start_wall_s is None:
                return Stamp(time_s, None, "none", None, None, jump)
            return Stamp(time_s, self._start_wall_s + time_s, "container", CONTAINER_SIGMA_S, None, jump)
        captured_s = min(arrival_s, time_s + self._undelayed_s)
        if self._rtcp_s is not None and time_s - self._rtcp_at_s > RTCP_KEPT_S:
            self._rtcp_s = None
            self._rtcp_votes.clear()
        if self._rtcp_s is not None and time_s + self._rtcp_s <= arrival_wall_s + RTCP_EARLY_S:
            wall_s = time_s + self._rtcp_s
            sigma_s = RTCP_SIGMA_S + max(0.0, wall_s - arrival_wall_s)
            return Stamp(time_s, wall_s, "rtcp", sigma_s, captured_s, jump)
        sigma_s = self._arrival_uncertainty(arrival_s)
        return Stamp(time_s, captured_s + arrival_wall_s - arrival_s, "arrival", sigma_s, captured_s, jump)


def believable(offset_s: float) -> bool:
    """Whether a capture time that is `offset_s` after our clock may be right."""
    return -RTCP_LATE_S <= offset_s <= RTCP_EARLY_S


def _steady_rise(points: Sequence[tuple[float, float]]) -> float:
    """How fast the second value rises with the first where it does so all the time, else 0: the lesser slope of both halves,
    so that what began to rise within the time is none."""
    if len(points) < 3 or points[-1][0] - points[0][0] < DRIFT_AFTER_S:
        return 0.0
    middle = len(points) // 2
    return max(0.0, min(_slope(points[: middle + 1]), _slope(points[middle:])))


def _slope(points: Sequence[tuple[float, float]]) -> float:
    """The median slope between any two points (Theil-Sen): a stall or two among them do not count."""
    return median((later[1] - first[1]) / (later[0] - first[0]) for first, later in combinations(points, 2))
