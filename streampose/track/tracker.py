"""Identity of one camera's people: which boxes to pose, who each of them is, and how their key points move on.

Two calls a frame: `propose` predicts everybody to the frame's time and says which boxes want a pose, `update` takes the
poses. Detections are given to tracks in rounds: first to known people, weak ones with a handicap (after Zhang et al.,
"ByteTrack", ECCV 2022), the rest to people lost from sight and to people not confirmed yet, and what is left to whoever
may have come so far: between two pictures half a second apart a walker leaves the box. Likeness mixes the overlap of the
boxes with the similarity of the poses, which decides where boxes overlap. Lifetimes are camera seconds.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from streampose.messages import Array, Image, Person
from streampose.track import appearance, association, candidates, matching
from streampose.track.candidates import Proposal
from streampose.track.options import SmoothOptions, TrackOptions
from streampose.track.people import describe
from streampose.track.smoother import Smoother
from streampose.track.track import EPSILON_S, Bodies, Track
from streampose.track.turns import Turns

Floats = npt.NDArray[np.float64]
LEAST_LIKENESS = 0.25  # below this a detection is somebody else
WEAK_HANDICAP = 0.05  # so much less likeness has a weak detection to anybody
LEAST_RECALL = 0.05
ABSENCE_COST = 0.3
ABSENCE_S = 0.15
LEAST_CARRY_FIT = 0.4  # OKS from which a pose in a predicted box is that person's
TAKEN_OKS = 0.6  # and up to which it is not that of somebody else seen already
LEAST_VISIBLE = 0.4  # the part of an unseen person's box that must still lie in the picture
ALONE_IOU = 0.1  # clothes are remembered from boxes that overlap nobody by more
MEMORY = 0.1  # the share of a new sighting in the memory of clothes
SURE_JOINT = 0.3  # score from which a joint may widen its box
EACH = np.s_[:, None]  # indexes tracks so that each of them meets each pose
SURE_STD = 0.08  # body heights: and it must be known that well


class CameraTracker:
    """The people of one camera; one thread.

    `skeleton_sigmas` (K,) are the OKS's; `body` are the joints left and right shoulder, hip and knee, by which clothes
    are found, None where the skeleton has no such joints. Ids are those of `ids`, from 1 on, and are never used again, not
    even after `reset`.
    """

    def __init__(
        self,
        skeleton_sigmas: npt.NDArray[Any],
        options: TrackOptions | None = None,
        smooth: SmoothOptions | None = None,
        body: Sequence[int] | None = None,
        ids: Iterator[int] | None = None,
    ) -> None:
        self.options = options or TrackOptions()
        self._sigmas = np.asarray(skeleton_sigmas, np.float64)
        self._body = None if body is None else np.array(body, np.intp)
        self._smoother = Smoother(self._sigmas, smooth or SmoothOptions())
        self._tracks: list[Track] = []
        self._bodies = Bodies(len(self._sigmas))
        self._ids = ids or itertools.count(1)
        self._turns = Turns(self.options.pose_every)
        self._time_s: float | None = None

    def reset(self) -> None:
        """A new segment begins: tracks and filters go, ids go on counting."""
        self._tracks = []
        self._bodies = Bodies(len(self._sigmas))
        self._smoother.clear()
        self._time_s = None

    def pose_every_at_least(self, frames: int) -> None:
        """Pose each person on every `frames`-th frame, or as seldom as the options say."""
        self._turns.every = max(frames, self.options.pose_every)

    def propose(self, time_s: float, boxes: Array | None, scores: Array | None, width: int, height: int) -> Proposal:
        """Predict everybody to `time_s` and say where a pose is wanted.

        `boxes` (N, 4) xyxy px and `scores` (N,) are the frame's detections, None where detection was not due. A time
        before the last one counts as the last one.
        """
        time_s = self._advance(time_s)
        self._turns.count(boxes is not None)
        detections, weights = candidates.clean(boxes, scores, self.options.low_threshold)
        kept = association.suppress(detections, np.arange(len(detections)), self.options.duplicate_iou)
        detections, weights = detections[kept], weights[kept]
        now = self._bodies.boxes
        overlap = association.iou(now, detections)
        sure = (weights >= self.options.high_threshold).tolist()
        owner = self._first_guess(overlap, sure)
        wanted = [j for j, good in enumerate(sure) if good or j in owner]
        if len(wanted) < len(sure):
            detections, weights, overlap = detections[wanted], weights[wanted], overlap[:, wanted]
        carried = self._uncovered(set(owner.values()))
        claims = np.concatenate((detections, now[carried]))
        owners = [owner.get(j) for j in wanted] + carried
        due = [index for index, row in enumerate(owners) if row is None or self._turns.is_due(self._tracks[row].id)]
        pose_of = np.full(len(claims), -1)
        pose_of[due] = np.arange(len(due))
        return Proposal(
            time_s=time_s,
            boxes=self._widened(claims[due], [owners[index] for index in due]).astype(np.float32),
            detections=detections,
            scores=weights,
            carried=np.array(carried, np.intp),
            pose_of=pose_of,
            detected=boxes is not None,
            picture=(width, height),
            overlap=overlap,
        )

    def update(self, proposal: Proposal, keypoints: Array, image: Image | None = None) -> tuple[Person, ...]:
        """Who is in the frame, sorted by id, once `keypoints` (M, K, 3) x, y, score of the proposed boxes are known.

        With the frame's `image` (H, W, 3) BGR the colours of people's clothes help to tell them apart.
        """
        poses, count = proposal.poses(keypoints, len(self._sigmas)), len(proposal.detections)
        numbers = np.isfinite(poses)
        sound: list[bool] = np.asarray(numbers.all(axis=(1, 2))).tolist()
        seen = np.where(numbers, poses, 0.0)  # nothing is a point of no score
        colours = self._colours(poses[:count], image)
        alike = matching.same_pose(seen[:count], proposal.detections, self._sigmas)
        doubles = matching.doubles(proposal.detections, alike)
        owners = self._assign(proposal, seen[:count], colours, doubles)
        discarded = doubles | self._discard(proposal, seen, owners, alike)
        used = self._see(proposal, poses, owners, discarded)
        self._remember(colours, used, discarded)
        searched = self._carry(proposal, seen, sound, used)
        self._smooth({row: column for row, column in used.items() if sound[column] and column not in discarded}, poses)
        found = np.array([row for row, column in used.items() if column < count], np.intp)
        self._bodies.anchor(
            found, np.where(self._smoother.known[found, :, None], self._smoother.mean[found, :, 0], np.nan)
        )
        raw = {self._tracks[row].id: poses[column] if sound[column] else None for row, column in used.items()}
        unused = {self._tracks[row].id for row, column in used.items() if column in discarded}
        self._age(proposal, used, searched)
        return describe(self._tracks, self._bodies, self._smoother, raw, unused, proposal.time_s)

    # -- before the poses

    def _advance(self, time_s: float) -> float:
        dt = 0.0 if self._time_s is None else max(time_s - self._time_s, 0.0)
        self._time_s = time_s if self._time_s is None else self._time_s + dt
        self._bodies.predict(dt, [person.unseen and person.missed_s is not None for person in self._tracks])
        self._smoother.predict(dt, self._bodies.sizes, self._bodies.drift)
        return self._time_s

    def _first_guess(self, overlap: Floats, sure: list[bool]) -> dict[int, int]:
        """Track row by detection, from the `overlap` (N, D) of the boxes alone, the `sure` detections first."""
        high = [j for j, good in enumerate(sure) if good]
        low = [j for j, good in enumerate(sure) if not good]
        rows = range(len(self._tracks))
        pairs = matching.match(overlap, rows, high, LEAST_LIKENESS)
        now_s, taken = self._time_s or 0.0, {row for row, _ in pairs}
        left = [row for row in rows if row not in taken and self._tracks[row].may_be_weak(now_s)]
        pairs += matching.match(overlap, left, low, LEAST_LIKENESS)
        return {column: row for row, column in pairs}

    def _uncovered(self, covered: set[int]) -> list[int]:
        """Rows of the people without a detection who may still be carried by their pose."""
        return [
            row
            for row, person in enumerate(self._tracks)
            if row not in covered and person.may_be_carried(self._time_s or 0.0, self.options)
        ]

    def _widened(self, boxes: Floats, owners: list[int | None]) -> Floats:
        """The `boxes` (C, 4), each grown to hold the joints that are known well of the track in its row of `owners`."""
        rows = np.array([row for row in owners if row is not None], np.intp)
        if not len(rows):
            return boxes
        sizes, smoother = self._bodies.sizes, self._smoother
        sure = (smoother.std() <= SURE_STD * sizes[:, None]) & (smoother.trust() >= SURE_JOINT)
        owned = [row is not None for row in owners]
        boxes[owned] = candidates.widen(boxes[owned], smoother.mean[rows, :, 0, :], sure[rows], sizes[rows])
        return boxes

    # -- who is who

    def _assign(self, proposal: Proposal, poses: Floats, colours: Floats, doubles: set[int]) -> dict[int, int]:
        """Track row by detection, in rounds."""
        options, tracks, bodies, detections = self.options, self._tracks, self._bodies, proposal.detections
        if not len(detections) or not tracks:
            return {}
        overlap = np.maximum(proposal.overlap, matching.stayed(bodies, detections))
        alike, told = self._fit(EACH, poses)
        dressed = appearance.wardrobe_likeness(bodies.colours, colours)
        similarity = matching.dress(matching.mix(overlap, alike, told), dressed, LEAST_LIKENESS)
        single = [j for j in range(len(detections)) if j not in doubles]
        sure = (proposal.scores >= options.high_threshold).tolist()
        high, low = [j for j in single if sure[j]], [j for j in single if not sure[j]]
        known = [row for row, person in enumerate(tracks) if person.confirmed]
        live = [row for row in known if not tracks[row].lost]
        missed = [row for row in known if tracks[row].unseen]
        fresh = [row for row, person in enumerate(tracks) if not person.confirmed]
        now_s = proposal.time_s
        unseen_s = np.array([now_s - person.evidence_s for person in tracks])
        absent_s = np.array([now_s - person.present_s if person.sought else 0.0 for person in tracks])
        similarity -= ABSENCE_COST * np.minimum(np.maximum(absent_s - ABSENCE_S, 0), 1)[:, None]
        owners: dict[int, int] = {}

        def give(likeness: Floats, rows: Iterable[int], columns: list[int], least: float) -> None:
            rows = sorted(set(rows) - set(owners.values()))
            columns = sorted(set(columns) - set(owners))
            owners.update((column, row) for row, column in matching.match(likeness, rows, columns, least))

        weighed = similarity
        if low:
            weighed = similarity.copy()
            weighed[:, low] -= [[WEAK_HANDICAP if person.may_be_weak(now_s) else np.inf] for person in tracks]
        give(weighed, live, single, LEAST_LIKENESS)
        if set(high) <= set(owners):
            return owners
        told_by_clothes = (unseen_s > matching.AHEAD_S) & (self._body is not None)
        unknown = np.where(told_by_clothes, 0.0, matching.NEUTRAL_COLOUR)[:, None]
        recalled = matching.recall_likeness(tracks, bodies, detections, now_s)
        recalled *= np.where(np.isfinite(dressed), dressed, unknown)
        give(recalled, missed, high, LEAST_RECALL)
        give(similarity, fresh, high, LEAST_LIKENESS)
        give(recalled, range(len(tracks)), high, LEAST_RECALL)
        return owners

    def _discard(self, proposal: Proposal, poses: Floats, owners: dict[int, int], alike: Floats) -> set[int]:
        """Detections whose pose is somebody else's: of two alike in overlapping boxes, the one that fits its track less.

        Two known people keep their boxes, and only one the pose; anybody else was a second box on the same person.
        """
        discarded: set[int] = set()
        for first, second in np.argwhere(alike > self.options.duplicate_oks).tolist():
            if first < second and not {first, second} & discarded:
                discarded.add(min(first, second, key=lambda column: self._claim(column, proposal, poses, owners)))
        return discarded

    def _claim(
        self, column: int, proposal: Proposal, poses: Floats, owners: dict[int, int]
    ) -> tuple[bool, float, float]:
        """How good a detection's right to its pose is: a confirmed owner, how the pose fits that owner, the score."""
        row = owners.get(column)
        score = float(proposal.scores[column])
        if row is None or not self._tracks[row].confirmed:
            return False, 0.0, score
        alike, told = self._fit([row], poses[[column]])
        return True, float(alike[0]) if told[0] else 0.0, score

    def _fit(self, rows: Any, poses: Floats) -> tuple[Floats, npt.NDArray[np.bool_]]:
        """OKS of what the filters of the tracks expect with `poses` (M, K, 3), and where enough is known of both: (M,)
        of M `rows`, each with the pose in its place, or (N, M) of `EACH` track with each pose."""
        smoother = self._smoother
        points, var = smoother.mean[..., 0, :][rows], smoother.cov[..., 0, 0][rows]
        return matching.pose_likeness(
            points, smoother.trust()[rows], var, poses, self._bodies.boxes[rows], self._sigmas
        )

    # -- what follows from it

    def _see(self, proposal: Proposal, poses: Floats, owners: dict[int, int], discarded: set[int]) -> dict[int, int]:
        """Give the detections to their tracks and begin new ones; candidate by track row."""
        boxes, scores, now_s = proposal.detections, proposal.scores, proposal.time_s
        used = {
            row: column
            for column, row in sorted(owners.items())
            if self._tracks[row].confirmed or column not in discarded
        }
        columns = list(used.values())
        self._smoother.forget(np.array([row for row in used if self._tracks[row].lost], np.intp))
        self._bodies.see_boxes(np.array(list(used), np.intp), boxes[columns], scores[columns])
        for row, score in zip(used, scores[columns].tolist(), strict=True):
            self._tracks[row].see(score, now_s)
        for column in sorted(set(range(len(boxes))) - set(owners) - discarded):
            score = float(scores[column])
            if self._may_begin(score, poses[column]):
                used[len(self._tracks)] = column
                self._tracks.append(Track(next(self._ids), score, now_s, now_s, now_s, now_s))
                self._bodies.add(boxes[column])
                self._smoother.add()
        return used

    def _colours(self, poses: Floats, image: Image | None) -> Floats:
        """The colours (D, 2, 3) of the clothes in each detection; NaN where not known."""
        if image is None or self._body is None or not len(poses):
            return np.full((len(poses), appearance.PARTS, 3), np.nan)
        return appearance.clothes(image, poses, self._body)

    def _remember(self, colours: Floats, used: dict[int, int], discarded: set[int]) -> None:
        """Keep the colours of those who stand alone."""
        if not used:
            return
        boxes, worn = self._bodies.boxes, self._bodies.colours
        near = (association.iou(boxes, boxes) > ALONE_IOU).sum(axis=1).tolist()  # the person among them
        alone = [(row, column) for row, column in used.items() if near[row] == 1 and column not in discarded]
        rows, columns = [row for row, _ in alone], [column for _, column in alone]
        worn[rows] = appearance.remember(worn[rows], colours[columns], MEMORY)

    def _may_begin(self, score: float, pose: Floats) -> bool:
        """A new person needs a sure detection and a pose that looks like one."""
        return score >= self.options.new_threshold and matching.confidence(pose[None])[0] >= self.options.min_pose_score

    def _carry(self, proposal: Proposal, poses: Floats, sound: list[bool], used: dict[int, int]) -> set[int]:
        """People whom the detector missed or was not asked for, if the pose in their predicted box is sure and theirs;
        the rows of those for whom the pose says whether they are there: it shows nobody, or enough to tell."""
        offered = enumerate(proposal.carried.tolist(), len(proposal.detections))
        asked = [(row, column) for column, row in offered if row not in used and sound[column]]
        if not asked:
            return set()
        bodies = self._bodies
        rows, own = np.array([row for row, _ in asked], np.intp), poses[[column for _, column in asked]]
        alike, told = self._fit(rows, own)
        somebody = matching.confidence(own) >= self.options.min_carry_score
        good = somebody & told & (alike >= LEAST_CARRY_FIT)
        areas = association.areas(bodies.boxes[rows])[:, None]
        same = (matching.common_likeness(own, poses, areas, self._sigmas) > TAKEN_OKS).tolist()
        for (row, column), is_good, is_same in zip(asked, good.tolist(), same, strict=True):
            if is_good and not any(is_same[other] for other in used.values()):  # nor that of somebody already seen
                self._tracks[row].carry(proposal.time_s, detected=proposal.detected)
                used[row] = column
        rows = np.array([row for row, _ in asked if row in used], np.intp)
        if len(rows):
            own = poses[[used[row] for row in rows.tolist()]]
            bodies.see_joints(rows, own[..., :2], own[..., 2])
        return {row for (row, _), says in zip(asked, (told | ~somebody).tolist(), strict=True) if says}

    def _smooth(self, used: dict[int, int], poses: Floats) -> None:
        rows = np.array(sorted(used), np.intp)
        points = poses[[used[row] for row in sorted(used)]]
        self._smoother.update(rows, points, self._bodies.sizes[rows], self._bodies.drift[rows])

    def _age(self, proposal: Proposal, used: dict[int, int], searched: set[int]) -> None:
        """Confirm who has been seen enough; note who was missed, of known people also by the pose where that was
        `searched`: who is new is not to blame before detection is due again; let go who was missed too long or has left."""
        options, now, count = self.options, proposal.time_s, len(proposal.detections)
        for row, person in enumerate(self._tracks):
            person.unseen = row not in used
            if row in used:
                person.confirmed = person.confirmed or person.may_confirm(options)
            if proposal.detected and person.missed_s is None and used.get(row, count) >= count:
                person.missed_s = now
            if person.unseen:
                person.miss(now, looked=proposal.detected or (person.confirmed and row in searched))
            person.lost = now - person.present_s > options.lost_after_s + EPSILON_S
        if len(used) == len(self._tracks):
            return
        visible = candidates.inside(self._bodies.boxes, *proposal.picture) >= LEAST_VISIBLE
        stay = [
            not person.unseen or (sees and person.is_awaited(now, options))
            for person, sees in zip(self._tracks, visible.tolist(), strict=True)
        ]
        if not all(stay):
            self._tracks = [person for person, stays in zip(self._tracks, stay, strict=True) if stays]
            self._bodies.keep(np.array(stay))
            self._smoother.keep(np.array(stay))
