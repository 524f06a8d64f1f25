"""The networks of a configuration: loaded once, shared by all cameras."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from streampose.config import Config
from streampose.detect.detector import Detector
from streampose.errors import ConfigError
from streampose.models.load import load_detector, load_pose, only_size
from streampose.pose.estimator import PoseEstimator
from streampose.sinks.draw import DrawSkeleton

GOVERNED_SCALES = (1.0, 0.5)  # detector input sizes the governor may choose, as parts of the configured one


@dataclass(frozen=True, slots=True, eq=False)
class Models:
    """The two networks, loaded once and shared by all cameras. `detectors` by input scale, 1.0 always among them."""

    detectors: Mapping[float, Detector]
    pose: PoseEstimator

    @property
    def draw_skeleton(self) -> DrawSkeleton:
        return DrawSkeleton(self.pose.skeleton.sides, self.pose.skeleton.edges)

    def facts(self) -> dict[str, Any]:
        """Names and sha256 of both, for the record's header."""
        detector, pose = self.detectors[1.0].manifest, self.pose.manifest
        return {
            "detector": {"name": detector.name, "sha256": detector.sha256},
            "pose": {"name": pose.name, "sha256": pose.sha256, "refiner": pose.sha256_refiner},
        }


def load_models(config: Config) -> Models:
    """Load what the configuration names; raises ModelError, one line, where that cannot be."""
    governed = any("resolution" in camera.degrade for camera in config.cameras.values() if camera.max_age is not None)
    detect = config.detect
    only = only_size(detect.model, trust=detect.trust)
    if only is not None and detect.size not in (None, max(only)):
        raise ConfigError(f"detect.size: {detect.size}; {detect.model} takes {only[0]}x{only[1]} and nothing else")

    def load(size: int | None) -> Detector:
        return load_detector(
            detect.model,
            size=None if only else size,
            threshold=min(detect.threshold, config.track.low_threshold),
            trust=detect.trust,
            device=config.device,
            runtime=config.runtime,
            precision=detect.precision or config.precision,
        )

    detectors = {1.0: load(detect.size)}
    if governed and only is None:
        for scale in GOVERNED_SCALES[1:]:
            detectors[scale] = load(max(32, round(detectors[1.0].size * scale / 32) * 32))
    pose = load_pose(
        config.pose.model,
        flip_test=config.pose.flip_test,
        trust=config.pose.trust,
        small=config.pose.small_model,
        small_below_px=config.pose.small_below,
        device=config.device,
        runtime=config.runtime,
        precision=config.pose.precision or config.precision,
    )
    return Models(detectors, pose)
