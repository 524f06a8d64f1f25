"""Who is who: how alike boxes and poses are, which are duplicates, and the best one-to-one assignment; pure functions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
COCO_BOX_FILL = 0.53  # a person fills about this part of the box; COCO's OKS uses the filled area

FEW_JOINTS, FEWEST_JOINTS = 3.0, 0.5


def least_joints(joints: int) -> float:
    """The sum of joint scores from which a pose of so many `joints` says something of the body: three sure ones of COCO's 17
    or more, as many in proportion of fewer."""
    return min(FEW_JOINTS, max(FEWEST_JOINTS, FEW_JOINTS * joints / 17))


def areas(boxes: npt.NDArray[Any]) -> Floats:
    """Areas (...,) of `boxes` (..., 4) xyxy; a box of negative side has none."""
    sides = np.maximum(boxes[..., 2:] - boxes[..., :2], 0.0)
    return np.asarray(sides[..., 0] * sides[..., 1], np.float64)


def overlaps(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> Floats:
    """Shared area (N, M) of each of `a` (N, 4) with each of `b` (M, 4)."""
    corner = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    sides = np.maximum(corner, 0.0)
    return np.asarray(sides[..., 0] * sides[..., 1], np.float64)


def iou(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> Floats:
    """Intersection over union (N, M); 0 where neither box has an area."""
    shared = overlaps(a, b)
    own = areas(a)
    union = own[:, None] + (own if b is a else areas(b)) - shared
    return np.divide(shared, union, out=np.zeros(shared.shape), where=union > 0)


def oks(
    a: npt.NDArray[Any],
    b: npt.NDArray[Any],
    weights: npt.NDArray[Any],
    area: npt.NDArray[Any],
    sigmas: npt.NDArray[Any],
    var: npt.NDArray[Any] | float = 0.0,
) -> Floats:
    """Object key-point similarity of paired poses, COCO's with weights for visibility: (..., ) in 0..1.

    `a`, `b` (..., K, 2) and `weights` (..., K) broadcast; `area` (...,) in px² is the person's filled area. `var`
    (..., K) px² is how uncertain the points are: what they may differ by grows with it, and the likeness falls by the
    square root of the ratio, so that an uncertain prediction is like nothing very much. 0 where all weights are 0.
    """
    tolerance = np.maximum(area, 1.0)[..., None] * (2.0 * sigmas) ** 2
    dx, dy = a[..., 0] - b[..., 0], a[..., 1] - b[..., 1]
    d2 = dx * dx + dy * dy
    if isinstance(var, np.ndarray) or var > 0:
        spread = tolerance + var
        like = np.exp(-0.5 * d2 / spread) * np.sqrt(tolerance / spread)
    else:
        like = np.exp(-0.5 * d2 / tolerance)
    total = weights.sum(axis=-1)
    return np.asarray((like * weights).sum(axis=-1) / np.where(total > 0, total, 1.0))


def suppress(boxes: npt.NDArray[Any], order: npt.NDArray[np.intp], limit: float) -> npt.NDArray[np.bool_]:
    """Which of `boxes` (N, 4) stay when, best first as in `order`, whoever overlaps a kept one by more than `limit` goes."""
    kept = np.zeros(len(boxes), bool)
    kept[order[firsts(iou(boxes, boxes)[order[:, None], order] > limit)]] = True
    return kept


def firsts(same: npt.NDArray[np.bool_]) -> list[int]:
    """Who of N stays when, in their order, whoever is the `same` (N, N) as an earlier one that stays goes."""
    gone: set[int] = set()
    for later, earlier in np.argwhere(same).tolist():
        if earlier < later and earlier not in gone:
            gone.add(later)
    return [index for index in range(len(same)) if index not in gone]


def assign(similarity: npt.NDArray[Any], least: float) -> list[tuple[int, int]]:
    """Pairs (row, column) of the one-to-one assignment with the greatest total of `similarity` (N, M) above `least`.

    A pair not above `least` is never made. Kuhn's Hungarian method with shortest augmenting paths (Jonker and Volgenant,
    1987), on Python floats: people in a picture are few, and starting scipy costs more than they ever will.
    """
    gain = np.maximum(np.asarray(similarity, np.float64) - least, 0.0)
    rows, columns = gain.shape
    if rows > columns:
        return sorted((row, column) for column, row in assign(np.asarray(similarity).T, least))
    pairs = _undisputed(gain.tolist())
    if pairs is not None:
        return pairs
    matched = _augment((-gain).tolist(), rows, columns)
    return [(row, column) for row, column in enumerate(matched) if gain[row, column] > 0]


def _undisputed(gain: list[list[float]]) -> list[tuple[int, int]] | None:
    """Each row with its best column, as mostly in a picture; None where two want the same one or one wants two."""
    owner: dict[int, int] = {}
    for row, gains in enumerate(gain):
        best = max(gains)
        if best > 0:
            column = gains.index(best)
            if column in owner or gains.count(best) > 1:
                return None
            owner[column] = row
    return [(row, column) for column, row in owner.items()]


def _augment(cost: list[list[float]], rows: int, columns: int) -> list[int]:
    """The column of each row in the cheapest assignment, for rows <= columns."""
    row_price, column_price = [0.0] * rows, [0.0] * columns
    owner = [-1] * columns
    for start in range(rows):
        shortest, came_from, done = [math.inf] * columns, [-1] * columns, [False] * columns
        row, column = start, -1
        tree = [(start, -1)]
        while True:
            best, best_column = math.inf, -1
            for j in range(columns):
                if done[j]:
                    continue
                reduced = cost[row][j] - row_price[row] - column_price[j]
                if reduced < shortest[j]:
                    shortest[j], came_from[j] = reduced, column
                if shortest[j] < best:
                    best, best_column = shortest[j], j
            for tree_row, tree_column in tree:
                row_price[tree_row] += best
                if tree_column >= 0:
                    column_price[tree_column] -= best
            for j in range(columns):
                if not done[j]:
                    shortest[j] -= best
            column = best_column
            done[column] = True
            if owner[column] < 0:
                break
            row = owner[column]
            tree.append((row, column))
        while column >= 0:
            before = came_from[column]
            owner[column] = start if before < 0 else owner[before]
            column = before
    result = [-1] * rows
    for column, row in enumerate(owner):
        if row >= 0:
            result[row] = column
    return result
