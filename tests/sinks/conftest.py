"""Fixtures for the tests of sinks."""

from __future__ import annotations

import pytest

from streampose.pose.skeleton import load_skeleton
from streampose.sinks.draw import DrawSkeleton


@pytest.fixture(scope="session")
def skeleton() -> DrawSkeleton:
    coco = load_skeleton("coco17")
    return DrawSkeleton(coco.sides, coco.edges)
