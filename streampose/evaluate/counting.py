"""Whoever counts by COCO's protocol: faster-coco-eval, which comes with an extra."""

from __future__ import annotations

from typing import Any

from streampose.errors import UsageError


def coco_counting() -> tuple[Any, Any]:
    """Its `COCO` and `COCOeval_faster`; raises UsageError where it is not installed."""
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError:
        raise UsageError(
            "evaluation, of a training too, needs faster-coco-eval: pip install 'streampose[eval]'"
        ) from None
    return COCO, COCOeval_faster
