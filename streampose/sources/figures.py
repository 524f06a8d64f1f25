"""Where the joints of walking, waving and standing figures are: a jointed body in three dimensions, seen from the front.

Pure functions of time. A body is one unit tall; x points to the viewer's right, y down, z towards the viewer; the origin
is on the ground between the feet. The figure turns about the vertical axis (yaw 0: facing the viewer, +90 degrees:
facing right) and is projected in parallel, so a joint's truth is exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]
Action = Literal["walk", "wave", "stand"]

# COCO's order: nose, eyes, ears, shoulders, elbows, wrists, hips, knees, ankles; left before right
(NOSE, L_EYE, R_EYE, L_EAR, R_EAR, L_SHOULDER, R_SHOULDER, L_ELBOW, R_ELBOW, L_WRIST, R_WRIST,
 L_HIP, R_HIP, L_KNEE, R_KNEE, L_ANKLE, R_ANKLE) = range(17)  # fmt: skip

# Segment lengths over stature: Drillis and Contini (1966), as printed in Winter, Biomechanics and Motor Control
THIGH, SHANK, FOOT_HEIGHT = 0.245, 0.246, 0.039
UPPER_ARM, FOREARM = 0.186, 0.146
SHOULDER_HEIGHT, HIP_HALF, SHOULDER_HALF = 0.818, 0.07, 0.115
HEAD_CENTRE = 0.925
STRIDE = 0.8  # two steps, over stature
SWING = 0.45  # amplitude of the thigh, radians


@dataclass(frozen=True, slots=True)
class Figure:
    """One person's part: who, what they do, where they stand and how they move.

    `x_px` and `sweep_px` give the walk x = x_px + sweep_px sin(2 pi time / period_s + phase): to and fro, slowing down
    where it turns. `ground_px` is the y of the feet, `height_px` the stature.
    """

    id: int
    action: Action
    x_px: float
    ground_px: float
    height_px: float
    sweep_px: float = 0.0
    period_s: float = 20.0
    phase: float = 0.0

    def pose(self, time_s: float) -> Points:
        """Joint positions (17, 3) at `time_s`: x and y in image pixels, depth towards the viewer in pixels."""
        angle = 2 * np.pi * time_s / self.period_s + self.phase
        body = _body(self.action, self._gait(angle), time_s)
        facing = np.tanh(3.0 * np.cos(angle)) if self.action == "walk" else 0.0
        yaw = facing * np.deg2rad(75.0)
        turned = np.empty_like(body)
        turned[:, 0] = np.cos(yaw) * body[:, 0] + np.sin(yaw) * body[:, 2]
        turned[:, 1] = body[:, 1]
        turned[:, 2] = -np.sin(yaw) * body[:, 0] + np.cos(yaw) * body[:, 2]
        here_px = self.x_px + self.sweep_px * np.sin(angle)
        placed: Points = turned * self.height_px + _point(here_px, self.ground_px, 0.0)
        return placed

    def _gait(self, angle: float) -> float:
        """Phase of the step cycle in radians: it goes with the distance walked, so feet do not slide."""
        quarter, part = np.divmod(angle + np.pi / 2, np.pi)
        walked_px = self.sweep_px * (2.0 * quarter + 1.0 - np.cos(part))
        return float(2 * np.pi * walked_px / (STRIDE * self.height_px)) + self.id


def _body(action: Action, gait: float, time_s: float) -> Points:
    """Joints (17, 3) of a unit body facing the viewer, its left on the viewer's right."""
    swing = SWING if action == "walk" else 0.0
    joints = np.zeros((17, 3))
    lift = 0.0
    for side, hip, knee, ankle, phase in (
        (1, L_HIP, L_KNEE, L_ANKLE, gait),
        (-1, R_HIP, R_KNEE, R_ANKLE, gait + np.pi),
    ):
        thigh = swing * np.sin(phase)
        bend = swing * (0.35 + 1.1 * max(0.0, np.cos(phase)) ** 2) if action == "walk" else 0.02  # most in mid-swing
        joints[hip] = (side * HIP_HALF, 0.0, 0.0)
        joints[knee] = joints[hip] + THIGH * _down(thigh)
        joints[ankle] = joints[knee] + SHANK * _down(thigh - bend)
        lift = max(lift, float(joints[ankle, 1]))
    _arms(joints, action, gait, time_s, swing)
    hip_to_shoulder = SHOULDER_HEIGHT - THIGH - SHANK - FOOT_HEIGHT
    joints[[L_SHOULDER, R_SHOULDER, L_ELBOW, R_ELBOW, L_WRIST, R_WRIST], 1] -= hip_to_shoulder
    head = _point(0.0, SHOULDER_HEIGHT - HEAD_CENTRE - hip_to_shoulder, 0.01)
    joints[NOSE] = head + _point(0.0, 0.012, 0.06)
    joints[L_EYE], joints[R_EYE] = head + _point(0.019, -0.012, 0.043), head + _point(-0.019, -0.012, 0.043)
    joints[L_EAR], joints[R_EAR] = head + _point(0.042, 0.0, -0.005), head + _point(-0.042, 0.0, -0.005)
    joints[:, 1] -= lift + FOOT_HEIGHT  # the lower foot stands on the ground
    return joints


def _arms(joints: Points, action: Action, gait: float, time_s: float, swing: float) -> None:
    """Arms against the legs when walking; a waving figure holds up its right hand. The shoulder line is y = 0."""
    sides = ((1, L_SHOULDER, L_ELBOW, L_WRIST, gait), (-1, R_SHOULDER, R_ELBOW, R_WRIST, gait + np.pi))
    for side, shoulder, elbow, wrist, phase in sides:
        joints[shoulder] = (side * SHOULDER_HALF, 0.0, 0.0)
        if action == "wave" and side < 0:
            wag = 0.5 * np.sin(2 * np.pi * 1.2 * time_s)
            joints[elbow] = joints[shoulder] + UPPER_ARM * _point(-0.94, -0.34, 0.0)
            joints[wrist] = joints[elbow] + FOREARM * _point(np.sin(wag) - 0.1, -np.cos(wag), 0.1)
            continue
        upper = -0.8 * swing * np.sin(phase)
        joints[elbow] = joints[shoulder] + UPPER_ARM * _down(upper) + _point(side * 0.02, 0.0, 0.0)
        joints[wrist] = joints[elbow] + FOREARM * _down(upper + 0.25 + 0.5 * swing)


def _down(angle: float) -> Points:
    """Unit vector of a limb that hangs, turned forward by `angle` radians."""
    return _point(0.0, np.cos(angle), np.sin(angle))


def _point(x: float, y: float, z: float) -> Points:
    return np.array([x, y, z], np.float64)


def figure_box(joints: Points, height_px: float) -> npt.NDArray[np.float32]:
    """Tight box (4,) xyxy around the body whose joints (17, 3) are given: flesh and head included."""
    half = 0.04 * height_px
    x1, y1 = joints[:, :2].min(axis=0) - half
    x2, y2 = joints[:, :2].max(axis=0) + half
    top = (joints[L_EAR, 1] + joints[R_EAR, 1]) / 2 - 0.075 * height_px
    return np.array([x1, min(y1, top), x2, y2], np.float32)


def cast_figures(people: int, width: int, height: int, seed: int) -> tuple[Figure, ...]:
    """`people` figures that fill a scene of `width` x `height` pixels: walkers that cross, one in three waves."""
    rng = np.random.default_rng(seed)
    figures = []
    for number in range(people):
        action: Action = "wave" if number % 3 == 2 else "walk"
        height_px = height * rng.uniform(0.38, 0.55)
        ground_px = height * (0.62 + 0.35 * (height_px / height - 0.38) / 0.17)  # the taller, the nearer
        place = (number + 0.5) / people if action == "wave" else rng.uniform(0.4, 0.6)
        sweep_px = width * rng.uniform(0.26, 0.34) if action == "walk" else 0.0
        speed_px = height_px * rng.uniform(0.55, 0.75)  # about 1.1 m/s for a body of 1.7 m
        period_s = 2 * np.pi * sweep_px / speed_px if sweep_px else 20.0
        phase = rng.uniform(0, 2 * np.pi)
        figures.append(Figure(number + 1, action, width * place, ground_px, height_px, sweep_px, period_s, phase))
    return tuple(figures)
