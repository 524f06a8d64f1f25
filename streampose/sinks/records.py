"""What a line of the record holds: every message as plain data. `docs/jsonl.md` and `streampose/schema/` define it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, TypeAlias

import numpy as np

from streampose.messages import Break, CameraState, Degrade, Gap, Missed, Person, PoseResult, SourceInfo

SCHEMA = 1
Word: TypeAlias = Gap | Missed | CameraState | Break | Degrade  # a control message that is a line of its own


def rfc3339(wall_s: float | None) -> str | None:
    """Seconds since the epoch as RFC 3339 in UTC with microseconds, None for None."""
    if wall_s is None:
        return None
    return datetime.fromtimestamp(wall_s, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def frame_record(result: PoseResult) -> dict[str, Any]:
    """One frame as plain data: points to 0.01 px, scores to 3 digits, time to the microsecond."""
    frame = result.frame
    record: dict[str, Any] = {
        "type": "frame",
        "schema": SCHEMA,
        "camera": frame.camera,
        "index": frame.index,
        "segment": frame.segment,
        "time": round(frame.time_s, 6),
        "pts": frame.pts,
        "time_base": None if frame.time_base is None else [frame.time_base.numerator, frame.time_base.denominator],
        "wall": rfc3339(frame.wall_s),
        "wall_source": frame.wall_source,
        "width": frame.width,
        "height": frame.height,
        "detected": result.detected,
        "people": _people(result.people),
    }
    if frame.wall_uncertainty_s is not None:
        record["wall_uncertainty"] = round(frame.wall_uncertainty_s, 6)
    if frame.file is not None:
        record["file"] = frame.file
    return record


def _people(people: Sequence[Person]) -> list[dict[str, Any]]:
    """The people as plain data, rounded all at once. A standard deviation that is not finite (a joint never measured)
    is null."""
    if not people:
        return []
    keypoints = _points([person.keypoints for person in people])
    raw = iter(_points([person.raw for person in people if person.raw is not None]))
    boxes = np.round(np.stack([person.box for person in people]).astype(np.float64), 2).tolist()
    stds = np.round(np.stack([person.std for person in people]).astype(np.float64), 2)
    spread: list[list[float | None]] = stds.tolist()
    if not np.isfinite(stds).all():
        spread = [[std if std is not None and np.isfinite(std) else None for std in row] for row in spread]
    return [
        {
            "id": person.id,
            "state": person.state,
            "score": round(float(person.score), 3),
            "box": box,
            "keypoints": points,
            "raw": None if person.raw is None else next(raw),
            "std": std,
            "joint_state": person.joint_state,
        }
        for person, box, points, std in zip(people, boxes, keypoints, spread, strict=True)
    ]


def _points(poses: Sequence[np.ndarray[Any, np.dtype[np.float32]]]) -> list[list[list[float]]]:
    if not poses:
        return []
    exact = np.stack(poses).astype(np.float64)
    exact[..., :2] = np.round(exact[..., :2], 2)
    exact[..., 2] = np.round(np.clip(exact[..., 2], 0.0, 1.0), 3)  # a heatmap may overshoot
    rows: list[list[list[float]]] = exact.tolist()
    return rows


def _span(gap: Gap) -> dict[str, Any]:
    return {
        "camera": gap.camera,
        "start": round(gap.start_s, 6),
        "end": round(gap.end_s, 6),
        "frames": gap.frames,
        "wall_start": rfc3339(gap.wall_start_s),
        "wall_end": rfc3339(gap.wall_end_s),
    }


def control_record(message: Word) -> dict[str, Any]:
    """A control message as plain data."""
    if isinstance(message, Gap):
        return {"type": "gap", "cause": message.cause, "detail": message.detail, **_span(message)}
    if isinstance(message, Missed):
        return {"type": "missed", "sink": message.sink, **_span(message.gap)}
    if isinstance(message, CameraState):
        return {
            "type": "camera",
            "camera": message.camera,
            "state": message.state,
            "reason": message.reason,
            "time": None if message.time_s is None else round(message.time_s, 6),
            "wall": rfc3339(message.wall_s),
        }
    if isinstance(message, Break):
        return {
            "type": "segment",
            "camera": message.camera,
            "segment": message.segment,
            "reason": message.reason,
            "source": _source(message.info),
        }
    return {
        "type": "degrade",
        "camera": message.camera,
        "step": message.step,
        "what": message.what,
        "reason": message.reason,
        "time": None if message.time_s is None else round(message.time_s, 6),
    }


def _source(info: SourceInfo) -> dict[str, Any]:
    """What a source says of itself, as plain data; its URL is free of credentials already."""
    return {
        "url": info.url,
        "kind": info.kind,
        "live": info.live,
        "width": info.width,
        "height": info.height,
        "nominal_fps": info.nominal_fps,
        "codec": info.codec,
        "duration": info.duration_s,
        "frame_count": info.frame_count,
    }
