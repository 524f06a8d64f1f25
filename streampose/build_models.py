"""The networks of a configuration: loaded once, shared by all cameras."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from streampose.config import Config
from streampose.detect.detector import MIN_SIZE, Detector
from streampose.models.load import load_detector, load_pose
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
        """Names and sha256 of all networks, for the record's header."""
        detector = self.detectors[1.0].manifest
        facts: dict[str, Any] = {"detector": {"name": detector.name, "sha256": detector.sha256}}
        for role, network in zip(("pose", "small_pose"), self.pose.networks, strict=False):
            of = network.manifest
            facts[role] = {"name": of.name, "sha256": of.sha256, "refiner": of.sha256_refiner}
        return facts


def load_models(config: Config) -> Models:
    """Load what the configuration names; raises ModelError, one line, where that cannot be."""
    governed = any("resolution" in camera.degrade for camera in config.cameras.values() if camera.max_age is not None)
    detect = config.detect

    def load(size: int | None) -> Detector:
        return load_detector(
            detect.model,
            size=size,
            threshold=min(detect.threshold, config.track.low_threshold),
            trust=detect.trust,
            device=config.device,
            runtime=config.runtime,
            precision=detect.precision or config.precision,
        )

    whole = load(detect.size)
    detectors = {1.0: whole}
    if governed and whole.canvas is None:
        for scale in GOVERNED_SCALES[1:]:
            size = max(MIN_SIZE, round(whole.size * scale / 32) * 32)
            if size < whole.size:
                detectors[scale] = load(size)
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
