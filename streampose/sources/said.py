"""What is worth a line about a source, said once: sources are opened again and again."""

from __future__ import annotations

import logging

log = logging.getLogger(__name__)
_said: set[str] = set()


def say_once(what: str, level: int = logging.INFO) -> None:
    """Log `what`, unless it was said in this process before."""
    if what not in _said:
        _said.add(what)
        log.log(level, "%s", what)
