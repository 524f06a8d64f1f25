"""The two networks of the pipeline from the words of a configuration: `load_pose` and `load_detector`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from streampose.detect.detector import Detector
from streampose.models.open import fixed_size, offers, open_runtime
from streampose.models.resolve import resolve
from streampose.pose.estimator import PoseEstimator, PoseNetwork
from streampose.pose.refiner import load_refiner
from streampose.pose.skeleton import load_skeleton
from streampose.runtime.base import Runtime
from streampose.runtime.select import choose

DEFAULT_POSE = "litehrnet18_256x192"
DEFAULT_DETECTOR = "yolov8n_person"


def load_pose(
    ref: str | Path = DEFAULT_POSE,
    *,
    device: str = "auto",
    runtime: str = "auto",
    precision: str = "auto",
    batch_sizes: Sequence[int] | None = None,
    flip_test: bool = False,
    trust: bool = False,
    threads: int | None = None,
    small: str | Path | None = None,
    small_below_px: float = 34,
    refined: bool = True,
) -> PoseEstimator:
    """The pose estimator for a model `ref` (see `resolve`), compiled and ready.

    `small` is a second model for people lower than `small_below_px` pixels. Without `refined` the networks' own words
    are taken, whatever refiner they bring. Raises ModelError or ConfigError, one line.
    """

    def network(name: str | Path) -> PoseNetwork:
        manifest, weights = resolve(name, "pose", trust=trust, refined=refined)
        choice = choose(device, runtime, precision, threads=threads, offers=offers(weights))
        load_skeleton(manifest.output.skeleton)
        refiner = (
            load_refiner(manifest, weights) if refined else None
        )  # before the network, which takes seconds to get ready
        return PoseNetwork(open_runtime(manifest, weights, choice, batch_sizes=batch_sizes), manifest, refiner)

    return PoseEstimator(
        network(ref),
        flip_test=flip_test,
        small=None if small is None else network(small),
        small_below_px=small_below_px,
    )


def load_detector(
    ref: str | Path = DEFAULT_DETECTOR,
    *,
    size: int | None = None,
    threshold: float = 0.4,
    device: str = "auto",
    runtime: str = "auto",
    precision: str = "auto",
    batch_sizes: Sequence[int] | None = None,
    trust: bool = False,
    threads: int | None = None,
) -> Detector:
    """The person detector for a model `ref` (see `resolve`); `size` is the long side of its input in pixels.

    Each picture shape is compiled when it first comes; `Detector.warm_up` does it before. Raises ModelError or
    ConfigError, one line.
    """
    manifest, weights = resolve(ref, "detect", trust=trust)
    choice = choose(device, runtime, precision, threads=threads, offers=offers(weights))

    def runtime_for(width: int, height: int) -> Runtime:
        return open_runtime(manifest, weights, choice, size=(width, height), batch_sizes=batch_sizes)

    canvas = fixed_size(weights, choice.runtime)
    return Detector(runtime_for, manifest, threshold=threshold, size=size, canvas=canvas)
