"""The sinks of a configuration: the part of `build.py` that makes what is written."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Set
from pathlib import Path
from typing import Any, TypeAlias, TypeGuard

from streampose import __version__
from streampose.build_models import Models
from streampose.config import CameraConfig, Config, DisplayConfig, JsonlConfig, PicturesConfig, RecordConfig, Section
from streampose.errors import ConfigError
from streampose.registry import SINKS, load
from streampose.sinks.base import Sink
from streampose.sinks.display import Display, no_display
from streampose.sinks.draw import DrawOptions
from streampose.sinks.paths import Names, Rolled, check_apart, check_template, check_writable, fill
from streampose.sinks.pictures import annotated_name
from streampose.sinks.record import check_size
from streampose.sinks.remux import Remuxer, source_template
from streampose.sinks.retention import Retention, Rules, Sweeper
from streampose.sinks.video_file import check_extension, check_preset
from streampose.sources.images import pictures_in
from streampose.sources.open import address_of, source_kind

log = logging.getLogger(__name__)
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
    for name, options in config.sinks:
        if isinstance(options, DisplayConfig):
            if display is not None:
                made.append(display.sink(camera))
        elif not (isinstance(options, RecordConfig) and options.mode == "source"):
            made.append(_make_sink(config, models, camera, name, options, names, sweeper, extra))
    return made


def _make_sink(
    config: Config,
    models: Models,
    camera: str,
    name: str,
    options: Section,
    names: Names,
    sweeper: Sweeper,
    extra: Footer,
) -> Sink:
    kind = load(SINKS, name)
    skeleton = models.draw_skeleton
    sink: Sink
    if isinstance(options, JsonlConfig):
        header = _header(config, models, camera)
        segment_s = _record_segment(config, options)
        sink = kind(options.path, camera, header, segment_s=segment_s, names=names, extra=extra)
    elif isinstance(options, PicturesConfig):
        drawing = DrawOptions(background=options.background)
        sink = kind(options.path, camera, skeleton, drawing, names=names)
    elif isinstance(options, RecordConfig):
        size = _size(options)
        sink = kind(
            options.path,
            camera,
            skeleton,
            DrawOptions(background=options.background),
            crf=options.crf,
            preset=options.preset,
            size=size,
            segment_s=options.segment,
            names=names,
            sources=_sources(config),
            retention=_retention(config, options, options.path, camera, names, sweeper),
        )
    else:
        raise ConfigError(f'sinks: "{name}" has no builder')
    return sink


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


def _record_segment(config: Config, options: JsonlConfig) -> float | None:
    """The record rolls with the video unless it says otherwise itself."""
    if options.segment is not None:
        return options.segment
    return next((o.segment for _, o in config.sinks if isinstance(o, RecordConfig) and o.segment is not None), None)


def _retention(
    config: Config, options: RecordConfig, template: str, camera: str, names: Names, sweeper: Sweeper
) -> Retention | None:
    """What a rolling video keeps; the record that rolls with it goes with it, with the annotated one where there are two."""
    if not _keeps(options):
        return None
    for name in config.cameras:
        for path, segment_s in _files(config):
            if segment_s is not None:
                names.roll(path, name)
    first = next(o for _, o in config.sinks if isinstance(o, RecordConfig) and _keeps(o))
    records = [o.path for _, o in config.sinks if isinstance(o, JsonlConfig) and _record_segment(config, o)]
    paths = [template, *(records if options is first and template == _videos(options)[0] else ())]
    rules = Rules(options.keep, options.keep_bytes, options.min_free)
    retention = Retention([names.roll(path, camera) for path in paths], rules, names)
    sweeper.add(retention)
    return retention


def _keeps(options: RecordConfig) -> bool:
    """Whether its files roll and are not kept for ever."""
    return options.segment is not None and (options.keep, options.keep_bytes, options.min_free) != (None, None, None)


def source_recording(
    config: Config, camera: str, names: Names, sweeper: Sweeper, given_up: Callable[[], bool]
) -> Remuxer | None:
    """The tap that records the source's own stream, where a record sink asks for it; `given_up` as in Remuxer."""
    for _, options in config.sinks:
        if _taps(options):
            template = source_template(options.path)
            retention = _retention(config, options, template, camera, names, sweeper)
            return Remuxer(
                template,
                camera,
                segment_s=options.segment,
                names=names,
                sources=_sources(config),
                retention=retention,
                given_up=given_up,
            )
    return None


def _taps(options: Section) -> TypeGuard[RecordConfig]:
    """Whether a sink records the source's own stream."""
    return isinstance(options, RecordConfig) and options.mode in ("source", "both")


def check_options(config: Config) -> None:
    """See that the sinks can do what is asked of them; raises ConfigError."""
    _check_taps(config)
    taken: dict[str, tuple[int, str, str]] = {}
    for number, (name, options) in enumerate(config.sinks):
        if isinstance(options, RecordConfig):
            _check_path(name, options.path, rolls=options.segment is not None, video=True)
            check_preset(options.preset)
            check_size(_size(options))
        elif isinstance(options, JsonlConfig):
            _check_path(name, options.path, rolls=_record_segment(config, options) is not None)
        elif isinstance(options, PicturesConfig):
            _check_path(name, options.path, rolls=False)
        if isinstance(options, RecordConfig | JsonlConfig):
            if options.segment is not None and options.segment < SHORTEST_SEGMENT_S:
                raise ConfigError(f"sinks: {name}.segment: {options.segment:g}; a time such as 10m is needed")
            if isinstance(options, RecordConfig) and options.segment is None:
                for rule in ("keep", "keep_bytes", "min_free"):
                    if getattr(options, rule) is not None:
                        raise ConfigError(f"sinks: {name}.{rule}: is of files that roll; give a `segment`, such as 10m")
            for path in _videos(options) if isinstance(options, RecordConfig) else (options.path,):
                for camera in config.cameras:
                    _take(taken, os.path.normpath(path.replace("{camera}", camera)), number, name, camera)


def _check_taps(config: Config) -> None:
    """See that one sink at most records the source's own stream, and that every camera has one."""
    taps = [options for _, options in config.sinks if _taps(options)]
    if len(taps) > 1:
        raise ConfigError(
            f"sinks: record.mode: {taps[0].path} and {taps[1].path} would both record the source's own stream; "
            "one can: give the others `mode: annotated`"
        )
    for name, camera in config.cameras.items() if taps else ():
        if why := source_kind(camera.full_url).no_packets:
            raise ConfigError(
                f"sinks: record.mode: {taps[0].mode}: cameras.{name}: {why}; "
                "give `mode: annotated`, or leave that camera out"
            )


def _take(taken: dict[str, tuple[int, str, str]], path: str, number: int, sink: str, camera: str) -> None:
    """Note that sink `number` writes `path` for this camera; raises ConfigError where another one does."""
    first, other, whose = taken.setdefault(path, (number, sink, camera))
    if first != number:
        raise ConfigError(f"sinks: {other} and {sink} would both write {path}; give each its own path")
    if whose != camera:
        raise ConfigError(f"sinks: {sink}.path: cameras {whose} and {camera} would both write {path}")


def _check_path(name: str, template: str, *, rolls: bool, video: bool = False) -> None:
    """See that the path of sink `name` can be; `rolls`: whether its files do."""
    try:
        check_template(template)
        if video:
            check_extension(Path(template))
    except ConfigError as error:
        raise ConfigError(f"sinks: {name}.path: {error}") from None
    if not rolls and ("{date}" in template or "{time}" in template):
        raise ConfigError(
            f"sinks: {name}.path: {template}: {{date}} and {{time}} are those of files that roll; "
            "give a `segment`, such as 10m, or leave them out"
        )


def _size(options: RecordConfig) -> tuple[int, int] | None:
    if options.size is None:
        return None
    width, height = options.size.split("x")
    return int(width), int(height)


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
            if isinstance(options, PicturesConfig):
                folder = Path(options.path.replace("{camera}", camera))
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
            if isinstance(options, PicturesConfig):
                found.add(Path(options.path.replace("{camera}", camera)))
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
            if isinstance(options, PicturesConfig):
                folder = Path(options.path.replace("{camera}", name))
                pictures = _pictures(camera)
                found.update((folder / annotated_name(file.name, file.parent), file) for file in pictures)
                found.update({} if pictures else {folder: source})
    return found


def _files(config: Config) -> list[tuple[str, float | None]]:
    """The templates of all videos and records, each with the length of its segments where it rolls."""
    found: list[tuple[str, float | None]] = []
    for _, options in config.sinks:
        if isinstance(options, RecordConfig):
            found += [(template, options.segment) for template in _videos(options)]
        elif isinstance(options, JsonlConfig):
            found.append((options.path, _record_segment(config, options)))
    return found


def _videos(options: RecordConfig) -> list[str]:
    """The templates of what one record sink writes: the annotated video, the source's own, or both."""
    own = source_template(options.path)
    return {"annotated": [options.path], "source": [own], "both": [options.path, own]}[options.mode]


def _first_file(template: str, camera: str, segment_s: float | None) -> Path:
    """A path that stands for what is written: the file itself, or one in the folder that rolled files have in common."""
    if segment_s is None:
        return fill(template, camera)
    return Rolled(template, camera).folder / f"file{Path(template).suffix}"


def make_display(config: Config, models: Models) -> Display | None:
    """The window, where one is asked for and there is a display; otherwise one line says why not."""
    for _, options in config.sinks:
        if isinstance(options, DisplayConfig):
            reason = no_display()
            if reason is None:
                return Display(models.draw_skeleton, DrawOptions(background=options.background))
            log.info("display: %s; everything else goes on", reason)
    return None
