"""The sinks of a configuration: the part of `build.py` that makes what is written."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Set
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from streampose import __version__
from streampose.build_models import Models
from streampose.config import CameraConfig, Config
from streampose.errors import ConfigError
from streampose.sinks.base import Given, Sink, SinkConfig
from streampose.sinks.display import Display
from streampose.sinks.paths import Names, Rolled, check_apart, check_writable, fill
from streampose.sinks.pictures import annotated_name
from streampose.sinks.remux import Remuxer
from streampose.sinks.retention import Retention, Sweeper
from streampose.sources.images import pictures_in
from streampose.sources.open import address_of, source_kind

SHORTEST_SEGMENT_S = 1.0
"""Names of files that roll tell seconds."""
Footer: TypeAlias = Callable[[], Mapping[str, Any]]


def make_sinks(
    config: Config,
    models: Models,
    camera: str,
    display: Display | None,
    names: Names,
    sweeper: Sweeper,
    extra: Footer,
) -> list[Sink]:
    """The sinks of one camera, in the configuration's order; a display that cannot be is left out. `names` are those of
    the run's files, `sweeper` sees to how long they are kept. `extra` is asked for more fields when a record's footer is
    written."""
    made: list[Sink] = []
    for _, options in config.sinks:
        given = Given(
            camera,
            lambda: models.draw_skeleton,
            names,
            _sources(config),
            _segment_s(config, options),
            partial(_retention, config, options, camera=camera, names=names, sweeper=sweeper),
            partial(_header, config, models, camera),
            extra,
            display,
        )
        if (sink := options.sink(given)) is not None:
            made.append(sink)
    return made


def _header(config: Config, models: Models, camera: str) -> dict[str, Any]:
    """What the first line of a record says, beside what the source itself brings."""
    public = config.public()
    return {
        "version": __version__,
        "source": public["cameras"][camera]["url"],
        "models": models.facts(),
        "keypoints": list(models.pose.skeleton.keypoints),
        "config": public,
    }


def _segment_s(config: Config, options: SinkConfig) -> float | None:
    """How long the files of a sink are: as it says itself, else, of one that follows, as the first that rolls."""
    own = options.segment_s()
    if own is not None or not options.follows:
        return own
    rolling = (other.segment_s() for _, other in config.sinks if not other.follows)
    return next((segment_s for segment_s in rolling if segment_s is not None), None)


def _retention(
    config: Config, options: SinkConfig, template: str, camera: str, names: Names, sweeper: Sweeper
) -> Retention | None:
    """What a rolling video keeps; the record that rolls with it goes with it, with the annotated one where there are two."""
    rules = options.rules()
    if rules is None:
        return None
    for name in config.cameras:
        for path, segment_s in _files(config):
            if segment_s is not None:
                names.roll(path, name)
    first = next(o for _, o in config.sinks if o.rules() is not None)
    records = [path for _, o in config.sinks if o.follows and _segment_s(config, o) for path in o.files()]
    paths = [template, *(records if options is first and template == options.files()[0] else ())]
    retention = Retention([names.roll(path, camera) for path in paths], rules, names)
    sweeper.add(retention)
    return retention


def source_recording(
    config: Config, camera: str, names: Names, sweeper: Sweeper, given_up: Callable[[], bool]
) -> Remuxer | None:
    """The tap that records the source's own stream, where a sink asks for it; `given_up` as in Remuxer."""
    for _, options in config.sinks:
        if (template := options.tap()) is not None:
            return Remuxer(
                template,
                camera,
                segment_s=options.segment_s(),
                names=names,
                sources=_sources(config),
                retention=_retention(config, options, template, camera, names, sweeper),
                given_up=given_up,
            )
    return None


def check_options(config: Config) -> None:
    """See that the sinks can do what is asked of them; raises ConfigError."""
    _check_taps(config)
    taken: dict[str, tuple[int, str, str]] = {}
    for number, (name, options) in enumerate(config.sinks):
        options.check(name, rolls=_segment_s(config, options) is not None)
        segment_s = options.segment_s()
        if segment_s is not None and segment_s < SHORTEST_SEGMENT_S:
            raise ConfigError(f"sinks: {name}.segment: {segment_s:g}; a time such as 10m is needed")
        for path in options.files():
            for camera in config.cameras:
                _take(taken, os.path.normpath(path.replace("{camera}", camera)), number, name, camera)


def _check_taps(config: Config) -> None:
    """See that one sink at most records the source's own stream, and that every camera has one."""
    taps = [(name, options) for name, options in config.sinks if options.tap() is not None]
    if len(taps) > 1:
        raise ConfigError(
            f"sinks: {taps[0][0]}.mode: {taps[0][1].template()} and {taps[1][1].template()} would both record the source's "
            "own stream; one can: give the others `mode: annotated`"
        )
    for name, camera in config.cameras.items() if taps else ():
        if why := source_kind(camera.full_url).no_packets:
            raise ConfigError(
                f"sinks: {taps[0][0]}.mode: cameras.{name}: {why}; give `mode: annotated`, or leave that camera out"
            )


def _take(taken: dict[str, tuple[int, str, str]], path: str, number: int, sink: str, camera: str) -> None:
    """Note that sink `number` writes `path` for this camera; raises ConfigError where another one does."""
    first, other, whose = taken.setdefault(path, (number, sink, camera))
    if first != number:
        raise ConfigError(f"sinks: {other} and {sink} would both write {path}; give each its own path")
    if whose != camera:
        raise ConfigError(f"sinks: {sink}.path: cameras {whose} and {camera} would both write {path}")


def check_outputs(config: Config) -> None:
    """See that every file the configuration asks for can be written, and is none of those that are read; raises SinkError
    or ConfigError before anything else is begun."""
    check_options(config)
    pictures = {name: _pictures(camera) for name, camera in config.cameras.items()}
    by_name: dict[str, list[Path]] = {}
    for picture in (picture for some in pictures.values() for picture in some):
        by_name.setdefault(picture.name, []).append(picture)
    for camera in config.cameras:
        for _, options in config.sinks:
            if (template := options.folder()) is not None:
                folder = Path(template.replace("{camera}", camera))
                for target in (folder / annotated_name(picture.name, picture.parent) for picture in pictures[camera]):
                    check_apart(target, by_name.get(target.name, ()))
                check_writable(folder / "picture.jpg")
        for template, segment_s in _files(config):
            path = _first_file(template, camera, segment_s)
            check_apart(path, [*_sources(config), *by_name.get(path.name, ())])
            check_writable(path)


def _pictures(camera: CameraConfig) -> list[Path]:
    """The picture that a camera reads, or those of a folder."""
    path = Path(address_of(camera.analysed_url))
    if os.path.isfile(path):
        return [path] if source_kind(camera.analysed_url).stills else []
    try:
        return pictures_in(path, camera.only)
    except (OSError, ValueError):
        return []  # no folder, or one that may not be read: whoever opens it says so


def _sources(config: Config) -> list[Path]:
    """What is read, of which only files can be lost."""
    urls = [url for camera in config.cameras.values() for url in (camera.url, camera.detect_url or camera.url)]
    return [Path(address_of(url)) for url in urls]


def first_files(config: Config) -> Set[Path]:
    """The names with which the cameras of a configuration begin, where files do not roll with the wall clock: a second file
    of one camera (`a-2.mp4`) must not take the place of the first one of another."""
    found = reserved_files(config)
    for camera in config.cameras:
        for _, options in config.sinks:
            if (template := options.folder()) is not None:
                found.add(Path(template.replace("{camera}", camera)))
    return found


def reserved_files(config: Config) -> set[Path]:
    """The records and videos with which the cameras begin, which no other run may write meanwhile. Files that roll are not
    among them: each gets a name of its own."""
    files = [template for template, segment_s in _files(config) if segment_s is None]
    return {fill(template, camera) for camera in config.cameras for template in files}


def outputs(config: Config) -> dict[Path, Path]:
    """What a configuration writes, each with what it is made of, to tell whether two of them write the same: files,
    annotated pictures, and the folder of those of a video. Devices and pipes take what several write, and files that roll
    get names of their own."""
    found: dict[Path, Path] = {}
    for name, camera in config.cameras.items():
        source = Path(address_of(camera.analysed_url))
        files = [fill(template, name) for template, segment_s in _files(config) if segment_s is None]
        found.update((file, source) for file in files if os.path.isfile(file) or not os.path.exists(file))
        for _, options in config.sinks:
            if (template := options.folder()) is not None:
                folder = Path(template.replace("{camera}", name))
                pictures = _pictures(camera)
                found.update((folder / annotated_name(file.name, file.parent), file) for file in pictures)
                found.update({} if pictures else {folder: source})
    return found


def _files(config: Config) -> list[tuple[str, float | None]]:
    """The templates of all videos and records, each with the length of its segments where it rolls."""
    return [(path, _segment_s(config, options)) for _, options in config.sinks for path in options.files()]


def _first_file(template: str, camera: str, segment_s: float | None) -> Path:
    """A path that stands for what is written: the file itself, or one in the folder that rolled files have in common."""
    if segment_s is None:
        return fill(template, camera)
    return Rolled(template, camera).folder / f"file{Path(template).suffix}"


def make_display(config: Config, models: Models) -> Display | None:
    """The window, where one is asked for and there is a display."""
    windows = (options.window(lambda: models.draw_skeleton) for _, options in config.sinks)
    return next((window for window in windows if window is not None), None)
