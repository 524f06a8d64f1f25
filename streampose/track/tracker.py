"""Identity of one camera's people: which boxes to pose, who each of them is, and how their key points move on.

Two calls a frame: `propose` predicts everybody to the frame's time and says which boxes want a pose, `update` takes the
poses. Detections are given to tracks in rounds: first to known people, weak ones with a handicap (after Zhang et al.,
"ByteTrack", ECCV 2022), the rest to people lost from sight and to people not confirmed yet. Likeness mixes the
overlap of the boxes with the similarity of the poses, which decides where boxes overlap. Lifetimes are camera seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from streampose.messages import Array, Image, Person
from streampose.track import appearance, association, candidates, matching, track
from streampose.track.candidates import Proposal
from streampose.track.options import SmoothOptions, TrackOptions
from streampose.track.people import describe
from streampose.track.smoother import Smoother
from streampose.track.track import Track

Floats = npt.NDArray[np.float64]
LEAST_LIKENESS = 0.25  # below this a detection is somebody else
WEAK_HANDICAP = 0.05  # so much less likeness has a weak detection to anybody
LEAST_RECALL = 0.05
STAYED_SHARE = 0.8  # of the overlap with where somebody unseen was seen last
WEAK_S = 0.5  # a weak detection carries only whom a detection showed not longer ago
DOUBLE_IOU = 0.4
DOUBLE_OKS = 0.6
ABSENCE_COST = 0.3
ABSENCE_S = 0.15
LEAST_CARRY_FIT = 0.4  # OKS from which a pose in a predicted box is that person's
TAKEN_OKS = 0.6  # and up to which it is not that of somebody else seen already
LEAST_VISIBLE = 0.4  # the part of an unseen person's box that must still lie in the picture
EPSILON_S = 1e-6
COCO_BODY = np.array([5, 6, 11, 12, 13, 14])
ALONE_IOU = 0.1  # clothes are remembered from boxes that overlap nobody by more
MEMORY = 0.1  # the share of a new sighting in the memory of clothes
SURE_JOINT = 0.3  # score from which a joint may widen its box
SURE_STD = 0.08  # body heights: and it must be known that well


class CameraTracker:
    """The people of one camera; one thread.

    `skeleton_sigmas` (K,) are the OKS's; `body` are the joints left and right shoulder, hip and knee, by which clothes
    are found (COCO's in a skeleton of 17). Ids count from 1 and are never used again, not even after `reset`.
    """

    def __init__(
        self,
        skeleton_sigmas: npt.NDArray[Any],
        options: TrackOptions | None = None,
        smooth: SmoothOptions | None = None,
        body: Sequence[int] | None = None,
    ) -> None:
        self.options = options or TrackOptions()
        self._sigmas = np.asarray(skeleton_sigmas, np.float64)
        coco = COCO_BODY if len(self._sigmas) == 17 else None
        self._body = np.array(body, np.intp) if body is not None else coco
        self._smoother = Smoother(self._sigmas, smooth or SmoothOptions())
        self._tracks: list[Track] = []
        self._next_id = 1
        self._frame = 0
        self._pose_every = self.options.pose_every
        self._time_s: float | None = None

    def reset(self) -> None:
        """A new segment begins: tracks and filters go, ids go on counting."""
        self._tracks = []
        self._smoother.clear()
        self._time_s = None

    def pose_every_at_least(self, frames: int) -> None:
        """Pose each person on every `frames`-th frame, or as seldom as the options say."""
        self._pose_every = max(frames, self.options.pose_every)

    def propose(self, time_s: float, boxes: Array | None, scores: Array | None, width: int, height: int) -> Proposal:
        """Predict everybody to `time_s` and say where a pose is wanted.

        `boxes` (N, 4) xyxy px and `scores` (N,) are the frame's detections, None where detection was not due. A time
        before the last one counts as the last one.
        """
        time_s = self._advance(time_s)
        detections, weights = candidates.clean(boxes, scores, self.options.low_threshold)
        kept = association.suppress(detections, np.arange(len(detections)), self.options.duplicate_iou)
        detections, weights = detections[kept], weights[kept]
        now = self._boxes()
        owner = self._first_guess(now, detections, weights)
        wanted = [j for j in range(len(detections)) if weights[j] >= self.options.high_threshold or j in owner]
        carried = self._uncovered(set(owner.values()))
        claims = np.concatenate((detections[wanted], now[carried]))
        owners = [owner.get(j) for j in wanted] + carried
        due = [index for index, row in enumerate(owners) if row is None or self._is_due(row)]
        pose_of = np.full(len(claims), -1)
        pose_of[due] = np.arange(len(due))
        return Proposal(
            time_s=time_s,
            boxes=self._widened(claims, owners)[due].astype(np.float32),
            detections=detections[wanted],
            scores=weights[wanted],
            carried=np.array(carried, np.intp),
            pose_of=pose_of,
            detected=boxes is not None,
            picture=(width, height),
        )

    def update(self, proposal: Proposal, keypoints: Array, image: Image | None = None) -> tuple[Person, ...]:
        """Who is in the frame, sorted by id, once `keypoints` (M, K, 3) x, y, score of the proposed boxes are known.

        With the frame's `image` (H, W, 3) BGR the colours of people's clothes help to tell them apart.
        """
        poses = proposal.poses(keypoints, len(self._sigmas))
        colours = self._colours(poses[: len(proposal.detections)], image)
        alike = matching.same_pose(poses[: len(proposal.detections)], proposal.detections, self._sigmas)
        doubles = self._doubles(proposal, alike)
        owners = self._assign(proposal, poses, colours, doubles)
        discarded = doubles | self._discard(proposal, poses, owners, alike)
        used = self._see(proposal, poses, owners, discarded)
        self._remember(proposal, colours, used, discarded)
        self._carry(proposal, poses, used)
        raw = {row: poses[column] for row, column in used.items() if np.isfinite(poses[column]).all()}
        thrown = {row for row, column in used.items() if column in discarded}
        self._smooth({row: pose for row, pose in raw.items() if row not in thrown})
        ids = {self._tracks[row].id: raw.get(row) for row in used}
        unused = {self._tracks[row].id for row in thrown}
        self._age(proposal, used)
        return describe(self._tracks, ids, unused, self._smoother, proposal.time_s)

    # -- before the poses

    def _advance(self, time_s: float) -> float:
        dt = 0.0 if self._time_s is None else max(time_s - self._time_s, 0.0)
        self._time_s = time_s if self._time_s is None else self._time_s + dt
        self._frame += 1
        track.predict(self._tracks, dt)
        self._smoother.predict(dt, self._sizes(), self._drift())
        return self._time_s

    def _first_guess(self, now: Floats, detections: Floats, weights: Floats) -> dict[int, int]:
        """Track row by detection, from the boxes alone."""
        overlap = association.iou(now, detections)
        high = np.flatnonzero(weights >= self.options.high_threshold).tolist()
        low = np.flatnonzero(weights < self.options.high_threshold).tolist()
        rows = range(len(self._tracks))
        pairs = matching.match(overlap, rows, high, LEAST_LIKENESS)
        left = sorted(set(rows) - {row for row, _ in pairs})
        pairs += matching.match(overlap, left, low, LEAST_LIKENESS)
        return {column: row for row, column in pairs}

    def _uncovered(self, covered: set[int]) -> list[int]:
        """Rows of the people without a detection who may still be carried by their pose."""
        return [
            row
            for row, person in enumerate(self._tracks)
            if row not in covered and person.may_be_carried(self._time_s or 0.0, self.options)
        ]

    def _is_due(self, row: int) -> bool:
        return (self._frame + self._tracks[row].id) % self._pose_every == 0

    def _widened(self, boxes: Floats, owners: list[int | None]) -> Floats:
        """The `boxes` (C, 4), each grown to hold the joints that are known well of the track in its row of `owners`."""
        owned = [index for index, row in enumerate(owners) if row is not None]
        rows = np.array([owners[index] for index in owned], np.intp)
        sizes, smoother = self._sizes(), self._smoother
        sure = (smoother.std() <= SURE_STD * sizes[:, None]) & (smoother.trust() >= SURE_JOINT)
        boxes[owned] = candidates.widen(boxes[owned], smoother.mean[rows, :, 0, :], sure[rows], sizes[rows])
        return boxes

    # -- who is who

    def _assign(self, proposal: Proposal, poses: Floats, colours: Floats, doubles: set[int]) -> dict[int, int]:
        """Track row by detection, in rounds."""
        options, count = self.options, len(proposal.detections)
        if not count or not self._tracks:
            return {}
        now, smoother = self._boxes(), self._smoother
        overlap = np.maximum(association.iou(now, proposal.detections), self._stayed(proposal.detections))
        alike, told = matching.pose_likeness(
            smoother.mean[:, :, 0, :], smoother.trust(), smoother.cov[..., 0, 0], poses[:count], now, self._sigmas
        )
        dressed = appearance.wardrobe_likeness(np.array([person.colours for person in self._tracks]), colours)
        similarity = matching.dress(matching.mix(overlap, alike, told), dressed, LEAST_LIKENESS)
        single = [j for j in range(count) if j not in doubles]
        high = [j for j in single if proposal.scores[j] >= options.high_threshold]
        low = [j for j in single if proposal.scores[j] < options.high_threshold]
        known = [row for row, person in enumerate(self._tracks) if person.confirmed]
        live = [row for row in known if not self._tracks[row].lost]
        missed = [row for row in known if self._tracks[row].unseen]
        fresh = [row for row, person in enumerate(self._tracks) if not person.confirmed]
        now_s = proposal.time_s
        unseen_s = np.array([now_s - person.evidence_s for person in self._tracks])
        similarity = similarity - ABSENCE_COST * np.clip(unseen_s - ABSENCE_S, 0, 1)[:, None]
        owners: dict[int, int] = {}

        def give(likeness: Floats, rows: list[int], columns: list[int], least: float) -> None:
            rows = sorted(set(rows) - set(owners.values()))
            columns = sorted(set(columns) - set(owners))
            owners.update((column, row) for row, column in matching.match(likeness, rows, columns, least))

        handicap = np.zeros_like(similarity)
        stale = np.array([now_s - person.seen_s > WEAK_S for person in self._tracks])
        handicap[:, low] = np.where(stale, np.inf, WEAK_HANDICAP)[:, None]
        give(similarity - handicap, live, single, LEAST_LIKENESS)
        if missed:
            recalled = matching.recall_likeness(self._tracks, proposal.detections, now_s)
            unknown = np.where(unseen_s > matching.AHEAD_S, 0.0, matching.NEUTRAL_COLOUR)[:, None]
            give(recalled * np.where(np.isfinite(dressed), dressed, unknown), missed, high, LEAST_RECALL)
        give(similarity, fresh, high, LEAST_LIKENESS)
        return owners

    def _stayed(self, detections: Floats) -> Floats:
        """Overlap (N, D) of the detections with where people not seen now were seen last: many have stopped there."""
        centres = np.array([person.seen_at for person in self._tracks])
        sides = np.array([person.sides for person in self._tracks])
        unseen = np.array([person.unseen for person in self._tracks])
        boxes = np.concatenate((centres - sides / 2, centres + sides / 2), axis=1)
        return np.where(unseen[:, None], STAYED_SHARE * association.iou(boxes, detections), 0.0)

    def _doubles(self, proposal: Proposal, alike: Floats) -> set[int]:
        """Detections that are a second box on somebody: they overlap a better one much, and the poses are the same."""
        overlap = association.iou(proposal.detections, proposal.detections)
        same = (overlap > DOUBLE_IOU) & (alike > DOUBLE_OKS)
        doubles: set[int] = set()
        for column in range(len(same)):
            if any(same[column, better] for better in range(column) if better not in doubles):
                doubles.add(column)
        return doubles

    def _discard(self, proposal: Proposal, poses: Floats, owners: dict[int, int], alike: Floats) -> set[int]:
        """Detections whose pose is somebody else's: of two alike in overlapping boxes, the one that fits its track less.

        Two known people keep their boxes, and only one the pose; anybody else was a second box on the same person.
        """
        pairs = np.argwhere(np.triu(alike > self.options.duplicate_oks))
        discarded: set[int] = set()
        for first, second in pairs.tolist():
            if not {first, second} & discarded:
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
        return True, self._fit(row, poses[column]), score

    def _fit(self, row: int, pose: Floats) -> float:
        """OKS of a pose (K, 3) with what the filters of track `row` expect; 0 where too little is known of either."""
        smoother = self._smoother
        alike, told = matching.pose_likeness(
            smoother.mean[row : row + 1, :, 0, :],
            smoother.trust()[row : row + 1],
            smoother.cov[row : row + 1, :, 0, 0],
            pose[None],
            track.boxes([self._tracks[row]]),
            self._sigmas,
        )
        return float(alike[0, 0]) if told[0, 0] else 0.0

    # -- what follows from it

    def _see(self, proposal: Proposal, poses: Floats, owners: dict[int, int], discarded: set[int]) -> dict[int, int]:
        """Give the detections to their tracks and begin new ones; candidate by track row."""
        boxes, scores, now_s = proposal.detections, proposal.scores, proposal.time_s
        used = {
            row: column
            for column, row in sorted(owners.items())
            if self._tracks[row].confirmed or column not in discarded
        }
        seen, columns = [self._tracks[row] for row in used], list(used.values())
        self._smoother.forget(np.array([row for row in used if self._tracks[row].lost], np.intp))
        track.see_boxes(seen, boxes[columns], scores[columns], now_s)
        for column in sorted(set(range(len(boxes))) - set(owners) - discarded):
            if self._may_begin(float(scores[column]), poses[column]):
                used[len(self._tracks)] = column
                self._tracks.append(track.begin(self._next_id, boxes[column], float(scores[column]), now_s))
                self._smoother.add()
                self._next_id += 1
        return used

    def _colours(self, poses: Floats, image: Image | None) -> Floats:
        """The colours (D, 2, 3) of the clothes in each detection; NaN where not known."""
        if image is None or self._body is None:
            return np.full((len(poses), appearance.PARTS, 3), np.nan)
        return appearance.clothes(image, poses, self._body)

    def _remember(self, proposal: Proposal, colours: Floats, used: dict[int, int], discarded: set[int]) -> None:
        """Keep the colours of those who stand alone."""
        boxes = self._boxes()
        crowd = association.iou(boxes, boxes) - np.eye(len(boxes))
        for row, column in used.items():
            if column not in discarded and column < len(colours) and crowd[row].max(initial=0.0) <= ALONE_IOU:
                person = self._tracks[row]
                person.colours = appearance.remember(person.colours, colours[column], MEMORY)

    def _may_begin(self, score: float, pose: Floats) -> bool:
        """A new person needs a sure detection and a pose that looks like one."""
        return score >= self.options.new_threshold and matching.confidence(pose) >= self.options.min_pose_score

    def _carry(self, proposal: Proposal, poses: Floats, used: dict[int, int]) -> None:
        """People whom the detector missed or was not asked for, if the pose in their predicted box is sure and theirs."""
        first = len(proposal.detections)
        others = list(used.values())
        for offset, row in enumerate(proposal.carried.tolist()):
            column = first + offset
            pose = poses[column]
            if row in used or not np.isfinite(pose).all() or matching.confidence(pose) < self.options.min_carry_score:
                continue
            if self._fit(row, pose) < LEAST_CARRY_FIT or self._taken(pose, column, others, poses, row):
                continue
            weights = np.where(self._smoother.known[row], pose[:, 2], 0.0)
            shift = matching.weighted_median(pose[:, :2] - self._smoother.mean[row, :, 0, :], weights)
            self._tracks[row].see_shift(shift, proposal.time_s, detected=proposal.detected)
            used[row] = column
            others.append(column)

    def _taken(self, pose: Floats, column: int, others: list[int], poses: Floats, row: int) -> bool:
        """Whether the pose is that of somebody already seen in this frame."""
        if not others:
            return False
        both = np.concatenate((pose[None], poses[others]))
        boxes = np.broadcast_to(track.boxes([self._tracks[row]]), (len(both), 4))
        return bool((matching.same_pose(both, boxes, self._sigmas)[0] > TAKEN_OKS).any())

    def _smooth(self, poses: dict[int, Floats]) -> None:
        rows = np.array(sorted(poses), np.intp)
        points = np.array([poses[row] for row in rows]).reshape(-1, len(self._sigmas), 3)
        self._smoother.update(rows, points, self._sizes()[rows], self._drift()[rows])

    def _age(self, proposal: Proposal, used: dict[int, int]) -> None:
        """Confirm who has been seen enough; note who was missed; let go who was missed too long or has left."""
        options, now, count = self.options, proposal.time_s, len(proposal.detections)
        visible = candidates.inside(self._boxes(), *proposal.picture)
        stay = np.ones(len(self._tracks), bool)
        for row, person in enumerate(self._tracks):
            person.unseen = row not in used
            if row in used:
                person.confirmed = person.confirmed or person.may_confirm(options)
            if proposal.detected and person.missed_s is None and used.get(row, count) >= count:
                person.missed_s = now
            unseen_s = now - person.evidence_s
            person.lost = unseen_s > options.lost_after_s + EPSILON_S
            patience_s = options.lost_after_s + options.recall_s if person.confirmed else options.tentative_lost_s
            stay[row] = row in used or (unseen_s <= patience_s + EPSILON_S and visible[row] >= LEAST_VISIBLE)
        if not stay.all():
            self._tracks = [person for person, stays in zip(self._tracks, stay, strict=True) if stays]
            self._smoother.keep(stay)

    def _sizes(self) -> Floats:
        return track.sizes(self._tracks)

    def _drift(self) -> Floats:
        return np.array([person.velocity for person in self._tracks]).reshape(-1, 2)

    def _boxes(self) -> Floats:
        return track.boxes(self._tracks)
