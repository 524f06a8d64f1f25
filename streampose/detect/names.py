"""What detectors and label files call people."""

from __future__ import annotations

PERSON_NAMES = ("person", "people", "pedestrian", "human")


def is_person(name: object) -> bool:
    """Whether a class or category of this name is that of people, in whatever case."""
    return str(name).strip().lower() in PERSON_NAMES
