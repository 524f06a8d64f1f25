"""Int8 by NNCF: the ranges of a network's activations, taken from people and frames of the bundled clips.

Post-training quantisation only: weights and activations of convolutions to 8 bits. It is an option, never the default:
what it costs in accuracy is measured by `streampose eval --precision int8` and stated in docs/models.md.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from streampose.errors import ModelError
from streampose.messages import Image
from streampose.models.manifest import Manifest
from streampose.runtime.select import cpu_sums_int8

PICTURES = 200
SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov")


def calibration_folder() -> Path | None:
    """STREAMPOSE_CALIBRATION, ./samples or the repository's samples, the first that holds videos."""
    named = os.environ.get("STREAMPOSE_CALIBRATION")
    folders = [*([Path(named)] if named else []), Path("samples"), Path(__file__).parents[2] / "samples"]
    return next((folder for folder in folders if folder.is_dir() and _videos(folder)), None)


def calibration_set() -> list[tuple[str, int, int]]:
    """Name, size and time of change of each video to calibrate on: other ones make another network."""
    folder = calibration_folder()
    facts = [(path.name, path.stat()) for path in (_videos(folder) if folder else [])]
    return [(name, each.st_size, each.st_mtime_ns) for name, each in facts]


def calibration_pictures(
    manifest: Manifest, width: int, height: int, count: int = PICTURES, *, any_size: bool = False
) -> Sequence[npt.NDArray[np.uint8]]:
    """Up to `count` inputs (height, width, 3) uint8 BGR for a network: crops of people, or frames, of videos.

    A detector that takes `any_size` gets every frame at its own shape, the long side as long as that of the input.
    People are found by the shipped detector. Raises ModelError where there are no videos or nobody is in them.
    """
    folder = calibration_folder()
    if folder is None:
        raise ModelError("precision int8 needs videos to calibrate on: set STREAMPOSE_CALIBRATION to a folder of some")
    frames = list(_spread(folder, count))
    if manifest.task == "detect":
        from streampose.detect import letterbox

        canvas = None if any_size else (width, height)
        plans = [letterbox.plan(frame.shape[1], frame.shape[0], max(width, height), canvas) for frame in frames]
        return [letterbox.apply(frame, plan) for frame, plan in zip(frames, plans, strict=True)]
    crops = np.concatenate([_people(frame, boxes, manifest, width, height) for frame, boxes in _found(frames)])
    if not len(crops):
        raise ModelError(f"precision int8: nobody was found in the videos of {folder}; set STREAMPOSE_CALIBRATION")
    return list(crops[np.linspace(0, len(crops) - 1, min(count, len(crops))).round().astype(int)])


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


def _videos(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())


def _spread(folder: Path, count: int) -> Iterator[Image]:
    """About `count` frames, evenly spread over all videos of a folder; raises ModelError where one cannot be read."""
    import av

    videos = _videos(folder)
    for path in videos:
        try:
            with av.open(str(path)) as container:
                stream = container.streams.video[0]
                total = stream.frames or int((container.duration or 0) / 1e6 * float(stream.average_rate or 25))
                every = max(1, round(total * len(videos) / count))
                for index, frame in enumerate(container.decode(stream)):
                    if index % every == 0:
                        yield np.asarray(frame.to_ndarray(format="bgr24"), np.uint8)
        except (av.FFmpegError, IndexError) as error:
            reason = getattr(error, "strerror", None) or "no video in it"
            raise ModelError(f"precision int8: {path}: cannot be read to calibrate on ({reason})") from error


def _found(frames: Sequence[Image]) -> Iterator[tuple[Image, npt.NDArray[np.float32]]]:
    from streampose.models.load import load_detector

    detector = load_detector(device="cpu", runtime="openvino", precision="fp32")
    for frame in frames:
        ((boxes, _),) = detector([frame])
        yield frame, boxes
    detector.close()


def _people(
    frame: Image, boxes: npt.NDArray[np.float32], manifest: Manifest, width: int, height: int
) -> npt.NDArray[np.uint8]:
    from streampose.pose.crop import crop_affines, cut_crops

    return cut_crops(frame, crop_affines(boxes, width, height, manifest.input.box_scale), width, height)
