"""A contact sheet of the people who were posed worst: the answer drawn on the picture, the labels beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from streampose.evaluate.evaluate import Verdict
from streampose.export.output import whole
from streampose.messages import Array, Image, JointState, Person
from streampose.pose.crop import map_points
from streampose.pose.skeleton import Skeleton
from streampose.sinks.draw import DrawOptions, DrawSkeleton, draw_people

TILE = (200, 260)  # width and height of one picture in pixels; a person has two: answer and labels
CAPTION_PX = 22
MARGIN_PX = 4
FONT, FONT_SCALE = cv2.FONT_HERSHEY_SIMPLEX, 0.42
SURROUNDINGS = 1.3
LABELLED_SCORE = {0: 0.0, 1: 0.2, 2: 1.0}
"""Joints with v = 1 (hidden) are drawn hollow, those without a label not at all."""


def contact_sheet(verdicts: Sequence[Verdict], skeleton: Skeleton, columns: int = 4) -> Image:
    """One picture (H, W, 3) BGR of `verdicts`, in order: of each the answer to the left and the labels to the right."""
    tiles = [_tile(verdict, skeleton) for verdict in verdicts]
    height, width = tiles[0].shape[:2]
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    sheet = np.full((rows * (height + 4), columns * (width + 8), 3), 32, np.uint8)
    for index, tile in enumerate(tiles):
        top, left = index // columns * (height + 4), index % columns * (width + 8)
        sheet[top : top + height, left : left + width] = tile
    return sheet


def write_sheet(path: str | Path, verdicts: Sequence[Verdict], skeleton: Skeleton) -> None:
    """Write the sheet as a picture, whole or not at all; raises SinkError where that cannot be done."""
    path = Path(path)
    done, data = cv2.imencode(".png", contact_sheet(verdicts, skeleton))
    with whole(path, "--sheet") as part:
        if not done:
            raise OSError(0, "the picture could not be encoded")
        part.write_bytes(data.tobytes())


def _tile(verdict: Verdict, skeleton: Skeleton) -> Image:
    image, affine = _close_up(verdict)
    labels = verdict.person.keypoints.copy()
    labels[:, 2] = [LABELLED_SCORE[int(v)] for v in labels[:, 2]]
    halves = [
        _draw(image, affine, verdict.keypoints, verdict.box, skeleton),
        _draw(image, affine, labels, verdict.person.box, skeleton),
    ]
    tile = np.hstack(halves)
    caption = np.full((CAPTION_PX, tile.shape[1], 3), 32, np.uint8)
    found = f"OKS {verdict.oks:.2f}" if verdict.keypoints is not None else "not found"
    height = verdict.person.box[3] - verdict.person.box[1]
    said = f"{found}  person {verdict.person.id}, {height:.0f} px, "
    text = _with_name(said, verdict.person.image.file, tile.shape[1] - 2 * MARGIN_PX)
    cv2.putText(caption, text, (MARGIN_PX, 15), FONT, FONT_SCALE, (235, 235, 235), 1, cv2.LINE_AA)
    return np.vstack([tile, caption])


def _with_name(said: str, file: str, width: int) -> str:
    """`said` and a file's name, of which the end stays where not all of it fits into `width` pixels."""
    tried = (said + file, *(f"{said}...{file[cut:]}" for cut in range(1, len(file) + 1)))
    return next((text for text in tried if cv2.getTextSize(text, FONT, FONT_SCALE, 1)[0][0] <= width), said)


def _close_up(verdict: Verdict) -> tuple[Image, Array]:
    """The surroundings of the person at tile size, and the (2, 3) map from the picture's pixels to the tile's."""
    box = verdict.person.box.astype(np.float64)
    centre, sides = (box[:2] + box[2:]) / 2, np.maximum(box[2:] - box[:2], 1.0)
    scale = float(np.min(np.array(TILE) / (sides * SURROUNDINGS)))
    affine = np.array([[scale, 0, TILE[0] / 2 - scale * centre[0]], [0, scale, TILE[1] / 2 - scale * centre[1]]])
    picture = verdict.sample.read()
    close = cv2.warpAffine(picture, affine, TILE, flags=cv2.INTER_LINEAR, borderValue=(64, 64, 64))
    return np.asarray(close, np.uint8), affine.astype(np.float32)


def _draw(image: Image, affine: Array, keypoints: Array | None, box: Array | None, skeleton: Skeleton) -> Image:
    if keypoints is None or box is None:
        return image.copy()
    points = keypoints.copy()
    points[:, :2] = map_points(affine[None].astype(np.float64), keypoints[None, :, :2])[0]
    corners = map_points(affine[None].astype(np.float64), box.reshape(1, 2, 2)).reshape(4)
    measured: JointState = "measured"
    person = Person(
        id=1,
        state="confirmed",
        score=1.0,
        box=corners,
        keypoints=points.astype(np.float32),
        raw=None,
        std=np.zeros(len(points), np.float32),
        joint_state=(measured,) * len(points),
    )
    return draw_people(image, [person], DrawSkeleton(skeleton.sides, skeleton.edges), DrawOptions(labels=False))
