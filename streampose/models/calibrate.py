"""Int8 by NNCF: the ranges of a network's activations, taken from people and frames of the bundled clips.

Post-training quantisation only: weights and activations of convolutions to 8 bits. It is an option, never the default:
what it costs in accuracy is measured by `streampose eval --precision int8` and stated in docs/models.md.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from streampose.errors import ModelError, words_of
from streampose.libav_name import libav_name
from streampose.messages import Image
from streampose.models import cache
from streampose.models.manifest import Manifest
from streampose.runtime.select import cpu_sums_int8

log = logging.getLogger(__name__)
PICTURES = 200
SEEK_S = 10.0
"""Frames that are further apart are sought; nearer ones are met sooner by decoding all between two key frames."""
SPARE = 8
Item = TypeVar("Item")
SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov")


def calibration_videos() -> list[Path]:
    """The video, or those of the folder, that STREAMPOSE_CALIBRATION names, else of ./samples or the repository's samples.

    Raises ModelError where the variable names neither, or a folder may not be read.
    """
    if named := os.environ.get("STREAMPOSE_CALIBRATION"):
        if not (found := _videos(Path(named))):
            raise ModelError(f"STREAMPOSE_CALIBRATION={named}: no video, nor a folder with any ({', '.join(SUFFIXES)})")
        return found
    return next(filter(None, map(_videos, (Path("samples"), Path(__file__).parents[2] / "samples"))), [])


VideoFacts: TypeAlias = "list[tuple[str, int, int]]"
"""Name, size in bytes and time of change in ns of each video to calibrate on: other ones make another network."""


def calibration_of(network: Mapping[str, object]) -> VideoFacts:
    """The videos that are there; where none can be found, those on which `network`, all else that it depends on, was last
    calibrated: what was made of them may be in the cache."""
    return _there() or _last(network)


def keep_calibration(network: Mapping[str, object]) -> None:
    """Note for a start without the videos on which ones `network` is calibrated, now that it is ready to run."""
    if not (there := _there()):
        log.info("int8 as calibrated before: the videos cannot be found")
    elif there != _last(network):
        cache.write(_note(network), json.dumps(there).encode())


def _there() -> VideoFacts:
    try:
        facts = [(path.name, path.stat()) for path in calibration_videos()]
    except (ModelError, OSError):  # said by `calibration_pictures`, where one is needed
        return []
    return [(name, each.st_size, each.st_mtime_ns) for name, each in facts]


def _last(network: Mapping[str, object]) -> VideoFacts:
    kept = cache.read(_note(network))
    return [] if kept is None else [(name, size, time_ns) for name, size, time_ns in json.loads(kept)]


def _note(network: Mapping[str, object]) -> Path:
    return cache.entry_path("calibration", network, ".json")


def calibration_pictures(
    manifest: Manifest, width: int, height: int, count: int = PICTURES, *, any_size: bool = False
) -> Sequence[npt.NDArray[np.uint8]]:
    """Up to `count` inputs (height, width, 3) uint8 BGR for a network: crops of people, or frames, of videos.

    A detector that takes `any_size` gets every frame at its own shape, the long side as long as that of the input.
    People are found by the shipped detector. Raises ModelError where there are no videos or nobody is in them.
    """
    videos = calibration_videos()
    if not videos:
        raise ModelError("precision int8 needs videos to calibrate on: set STREAMPOSE_CALIBRATION to a folder of some")
    frames = spread_frames(videos, count)
    if manifest.task == "detect":
        canvas = None if any_size else (width, height)
        pictures = [_laid_out(frame, max(width, height), canvas) for frame in frames]
    else:
        pictures = evenly(_people(frames, manifest, width, height), count)
    if not pictures:
        raise ModelError(
            f"precision int8: {'nothing' if manifest.task == 'detect' else 'nobody'} was found in the videos of "
            f"{videos[0].parent}; set STREAMPOSE_CALIBRATION"
        )
    return pictures


def quantise(model: Any, pictures: Sequence[npt.NDArray[np.uint8]]) -> Any:
    """An int8 copy of an OpenVINO `model` whose input is uint8 pictures; raises ModelError without NNCF.

    Weights take half of the range where this CPU's sums would overflow otherwise.
    """
    import streampose.runtime.quiet_openvino  # noqa: F401  (silences NNCF too)

    try:
        import nncf
    except ImportError as error:
        raise ModelError("precision int8 needs NNCF: pip install 'streampose[int8]', or choose another") from error
    logging.getLogger("nncf").setLevel(logging.WARNING)
    nncf.set_log_level(logging.WARNING)
    batch = model.inputs[0].get_partial_shape()[0]
    dataset = nncf.Dataset(
        [np.repeat(picture[None], batch.get_length() if batch.is_static else 1, 0) for picture in pictures]
    )
    convolutions = [
        node.get_friendly_name() for node in model.get_ordered_ops() if node.get_type_name() == "Convolution"
    ]
    overflow = nncf.OverflowFix.FIRST_LAYER if cpu_sums_int8() else nncf.OverflowFix.ENABLE
    ends = [convolutions[0], convolutions[-1]]  # the normalisation, and the layer whose values are decoded: left exact
    return nncf.quantize(
        model,
        dataset,
        subset_size=len(pictures),
        preset=nncf.QuantizationPreset.MIXED,
        fast_bias_correction=True,
        ignored_scope=nncf.IgnoredScope(names=ends),
        advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=overflow),
    )


def _videos(path: Path) -> list[Path]:
    """The video at `path`, or those in the folder, sorted; empty where there are none."""
    try:
        inside = path.iterdir() if path.is_dir() else [path]
        return sorted(each for each in inside if each.suffix.lower() in SUFFIXES and each.is_file())
    except OSError as error:
        raise ModelError(f"{path}: cannot be read for videos to calibrate on ({words_of(error)})") from error


def evenly(items: Iterable[Item], count: int) -> list[Item]:
    """`count` of the items, evenly spread, or all where they are fewer; at most `SPARE` times as many are held."""
    kept: list[Item] = []
    every = 1
    for index, item in enumerate(items):
        if index % every == 0:
            kept.append(item)
            if len(kept) > SPARE * count:
                kept, every = kept[::2], 2 * every
    return [kept[at] for at in np.linspace(0, len(kept) - 1, min(count, len(kept))).round().astype(int)]


def spread_frames(videos: Sequence[Path], count: int) -> Iterator[Image]:
    """Up to `count` frames, evenly spread over the videos, and over all of each; of more than `count` videos one each.

    Raises ModelError where one cannot be read.
    """
    import av

    chosen = evenly(videos, count)
    for number, path in enumerate(chosen):
        try:
            total, share = _frame_count(path), len(range(number, count, len(chosen)))
            # Rounded where that is up, as in what the figures in docs/models.md were calibrated on; down, it lacks the end.
            step = max(1.0, total / share, round(total / share))
            positions = [int(step * each) for each in range(share) if step * each < max(total, share)]
            with av.open(libav_name(path)) as container:
                for frame in _frames_at(container, positions, step):
                    yield np.asarray(frame.to_ndarray(format="bgr24"), np.uint8)
        except (av.FFmpegError, IndexError) as error:
            reason = getattr(error, "strerror", None) or "no video in it"
            raise ModelError(f"precision int8: {path}: cannot be read to calibrate on ({reason})") from error


def _frame_count(path: Path) -> int:
    """About how many frames a video has: as its header says, else its packets are counted."""
    import av

    with av.open(libav_name(path)) as container:
        stream = container.streams.video[0]
        said = stream.frames or int((container.duration or 0) / 1e6 * float(stream.average_rate or 25))
        return said or sum(1 for packet in container.demux(stream) if packet.size)


def _frames_at(container: Any, positions: Sequence[int], step: float) -> Iterator[Any]:
    """The frames of the first video stream at these `positions`, which are about `step` apart.

    Where they are seconds apart, the key frame before each is taken; where that was taken before, the frames that follow
    it are decoded up to the next one that is wanted.
    """
    stream = container.streams.video[0]
    rate = float(stream.average_rate or 25)
    if step / rate < SEEK_S:
        chosen = set(positions)
        decoded = islice(container.decode(stream), positions[-1] + 1)
        yield from (frame for position, frame in enumerate(decoded) if position in chosen)
        return
    first, last, seek = stream.start_time or 0, -1, True
    for position in positions:
        wanted = first + round(position / rate / stream.time_base)
        if seek:
            container.seek(wanted, stream=stream)
            frames = container.decode(stream)
        sought, seek = seek, False
        for frame in frames:
            new = frame.pts is not None and frame.pts > last
            seek = seek or (new and frame.key_frame)
            if new and (sought or frame.pts >= wanted):
                last = frame.pts
                yield frame
                break
            sought = False
        else:
            return


def _laid_out(frame: Image, long_side: int, canvas: tuple[int, int] | None) -> npt.NDArray[np.uint8]:
    from streampose.detect import letterbox

    return letterbox.apply(frame, letterbox.plan(frame.shape[1], frame.shape[0], long_side, canvas))


def _people(frames: Iterable[Image], manifest: Manifest, width: int, height: int) -> Iterator[npt.NDArray[np.uint8]]:
    """The crops of all people of the frames, one by one."""
    from streampose.models.load import load_detector
    from streampose.pose.crop import crop_affines, cut_crops

    detector = load_detector(device="cpu", runtime="openvino", precision="fp32")
    for frame in frames:
        ((boxes, _),) = detector([frame])
        yield from map(
            np.copy, cut_crops(frame, crop_affines(boxes, width, height, manifest.input.box_scale), width, height)
        )
    detector.close()
