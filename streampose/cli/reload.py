"""SIGHUP: reads the configuration again while the cameras go on, and changes those that differ.

It is read, and its outputs are looked at, in a thread: their disk may hang, and the main thread must hear the next signal.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from streampose.config import Config, validate
from streampose.errors import StreamposeError
from streampose.pipeline.run import CameraRun
from streampose.pipeline.workers import Worker, WorkerGroup, raise_all
from streampose.sinks.reserve import Reserved

if TYPE_CHECKING:
    from streampose.build import Built

log = logging.getLogger(__name__)
LONG_S = 10.0  # what takes so long hangs, as far as anybody can tell


class Reload:
    """Of one run. Called in the main thread; its own thread belongs to `group`. `load` is None where nothing can change.
    `outputs`: what is reserved, which changes, too."""

    def __init__(
        self,
        built: Built,
        config: Config,
        load: Callable[[], Config] | None,
        group: WorkerGroup,
        outputs: Reserved | None = None,
    ) -> None:
        self.config = config
        self._built = built
        self._load = load
        self._group = group
        self._outputs = outputs
        self._worker: Worker | None = None
        self._began_s = 0.0
        self._said = False
        self._found: tuple[Config, Config] | None = None  # what was read, and what of it can be now
        self._holds_too_much = False  # for a camera that was removed

    @property
    def under_way(self) -> bool:
        """Whether a configuration is being read, or was read and is not in force yet."""
        return self._worker is not None

    def begin(self) -> None:
        """Read the configuration again, unless nothing can come of it; `tick` puts it in force. Not while one is read."""
        if self._load is None:
            log.warning("reload: only `streampose run` without smooth.offline can; nothing is changed")
        elif not self._refused():
            self._began_s, self._said, self._found = time.monotonic(), False, None
            self._worker = self._group.start("reload", partial(self._read, self._load), abandonable=True)

    def tick(self) -> None:
        """Put in force what was read, as soon as it was; let go of the outputs of removed cameras once they are closed.
        Raises a bug of the reading."""
        raise_all(self._group.errors())
        if self._worker is not None:
            if self._worker.running:
                if not self._said and time.monotonic() - self._began_s > LONG_S:
                    self._said = True
                    log.warning("reload: not read after %g s: see to the disks of configuration and outputs", LONG_S)
                return
            self._worker = None
            if self._found is not None and not self._refused():
                self._apply(*self._found)
        if self._holds_too_much and all(camera.whole() for camera in self._built.run.gone):
            self._holds_too_much = False
            self._let_go()

    def _refused(self) -> bool:
        """Whether it is too late; says so."""
        if self._built.run.ending:
            log.warning("reload: the run is ending; nothing is changed")
        return self._built.run.ending

    def _read(self, load: Callable[[], Config]) -> None:
        """The body of thread `reload`."""
        from streampose.build import describe
        from streampose.build_sinks import check_outputs, reserved_files

        try:
            after = load()
            now = validate({**dict(self.config), "cameras": after.cameras}, "with what stays until the next start")
            describe(now)
            check_outputs(now)
            if self._outputs is not None:
                self._outputs.take(reserved_files(now))
        except StreamposeError as error:
            log.error("reload: %s; nothing is changed", error)
            return
        self._found = after, now

    def _apply(self, after: Config, now: Config) -> None:
        """Add, remove and restart cameras; other sections need a new start, and it is said."""
        if after != now:
            log.warning("reload: only `cameras` can change while running; the other changes wait for the next start")
        before, self.config = self.config.cameras, now
        removed = [name for name, camera in before.items() if now.cameras.get(name) != camera]
        added = [name for name, camera in now.cameras.items() if before.get(name) != camera]
        for name in removed:
            self._built.run.remove(name)
        for name in added:
            self._built.run.add_when_free(name, partial(self._make, name))
        self._holds_too_much = True
        log.info("reload: %s removed, %s added", ", ".join(removed) or "none", ", ".join(added) or "none")

    def _let_go(self) -> None:
        """Hold only the outputs of the cameras that there are; in a thread, since their disk may hang."""
        from streampose.build_sinks import reserved_files

        if self._outputs is not None:
            keep = partial(self._outputs.keep, reserved_files(self.config))
            self._group.start("release", keep, abandonable=True)

    def _make(self, name: str) -> CameraRun:
        """The camera as it is configured by the time that it begins."""
        return self._built.make_camera(self.config, name)
