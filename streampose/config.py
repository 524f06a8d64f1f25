"""The configuration as typed models, and the one line that says what is wrong with a bad one.

Unknown keys (with the nearest right one), wrong types, wrong units and bad ranges are each one `ConfigError` that names
the key. `config_file.py` reads the YAML; components never see these models, `build.py` hands them plain arguments. The
section of a sink stands beside it, in its own file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias
from urllib.parse import quote, unquote

from pydantic import (
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from streampose.errors import ConfigError
from streampose.hours import Hours
from streampose.redact import MARK, quote_credentials, redact_url, remember, split_credentials
from streampose.registry import RUNTIMES, SINKS, load
from streampose.section import Positive, Section
from streampose.sinks.base import SinkConfig
from streampose.sources.limits import OPEN_TIMEOUT_S, READ_TIMEOUT_S
from streampose.typed_yaml import WANTED, explain, nearest
from streampose.units import Duration

_DEVICE = re.compile(rf"auto|cpu|mps|cuda(:\d+)?|({'|'.join(RUNTIMES)}):.+")

Rung: TypeAlias = Literal["detect_every", "pose_every", "resolution", "fps"]
if TYPE_CHECKING:
    RuntimeName: TypeAlias = str
else:
    RuntimeName = Literal[("auto", *RUNTIMES)]
Precision: TypeAlias = Literal["auto", "fp32", "bf16", "fp16", "int8"]
Timeout: TypeAlias = Annotated[Duration, Field(gt=0, le=1800)]
"""A limit of the network: with none nothing could be connected, and FFmpeg counts microseconds in 31 bits, 35 minutes."""


class CameraConfig(Section):
    """One camera, recording or folder."""

    url: str = Field(
        description="file, folder, picture, rtsp://…, http://…, 0 for a webcam, test:people; "
        "an existing file or folder of that very name goes before the others"
    )
    only: tuple[str, ...] | None = Field(None, description="a folder of pictures: only those of these names")
    user: str | None = Field(None, description="user name, quoted into the URL for you, in place of the one in it")
    password: str | None = Field(
        None, repr=False, description="write ${VAR} or ${file:PATH} here, never the word itself"
    )
    policy: Literal["auto", "lossless", "latest"] = Field(
        "auto", description="lossless: every frame (recordings); latest: the newest frame wins (live)"
    )
    transport: Literal["tcp", "udp"] = "tcp"
    open_timeout: Timeout = Field(OPEN_TIMEOUT_S, description="the longest that connecting may take in all")
    read_timeout: Timeout = Field(
        READ_TIMEOUT_S,
        description="the longest silence of the network, connecting or later; larger for a camera that is slower",
    )
    stall_after: Duration = Field(2.0, description="live: so long without a picture is a stall")
    give_up_after: Duration = Field(
        3.0,
        description="live: so long without a picture, and the camera is opened anew; slow cameras have longer",
    )
    backoff: Duration = Field(0.5, description="the first wait before a reconnect; doubles, with jitter")
    backoff_max: Duration = Field(
        2.5, description="the longest such wait: with it a camera is seen again within five seconds"
    )
    max_age: Positive | None = Field(
        None, description="policy latest: a frame older than this before the networks is dropped"
    )
    degrade: tuple[Rung, ...] = Field(
        ("detect_every", "pose_every", "resolution", "fps"),
        description="what is given up, in this order, while `max_age` cannot be kept; "
        "resolution where the detector takes pictures of several sizes",
    )
    skip: Literal["none", "nonref", "nonkey"] = Field("none", description="frames that are not even decoded")
    threads: int = Field(0, ge=0, le=64, description="decoder threads, up to 64; 0 lets FFmpeg choose")
    hwaccel: str = Field("none", description="hardware decoding: auto, cuda, vaapi, …; falls back, and says so")
    blind: bool = Field(True, description="live: watch for a frozen, dark, covered, defocused or moved picture")
    hours: tuple[str, ...] | None = Field(
        None, description='live: watched only then, in local time, such as ["06:00-22:00"]; paused otherwise'
    )
    detect_url: str | None = Field(
        None,
        description="a sub-stream to analyse, while `url` is what is recorded as source; same `user`, `password`",
    )

    @field_validator("url", mode="before")
    @classmethod
    def _number_is_a_webcam(cls, value: object) -> object:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("url", "detect_url")
    @classmethod
    def _is_given(cls, value: str | None) -> str | None:
        if value is not None and not value.strip():
            raise ValueError("empty; a file, a folder, an address, 0 for a webcam or test:people is wanted")
        return value

    @field_validator("hours")
    @classmethod
    def _are_windows_of_the_day(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value is not None:
            Hours.parse(value)
        return value

    @property
    def full_url(self) -> str:
        """The URL with `user` and `password` quoted into it; one that is not given stays the URL's own. Never log it."""
        return self._with_credentials(self.url)

    @property
    def analysed_url(self) -> str:
        """The full URL of what is analysed: the sub-stream where there is one. Never log it."""
        return self.full_url if self.detect_url is None else self._with_credentials(self.detect_url)

    def _with_credentials(self, url: str) -> str:
        scheme, userinfo, rest = split_credentials(quote_credentials(url))
        if not scheme or (self.user is None and self.password is None):
            return url
        own_user, _, own_password = (userinfo or "").partition(":")
        user = unquote(own_user) if self.user is None else self.user
        password = unquote(own_password) if self.password is None else self.password
        return f"{scheme}{quote(user, safe='')}:{quote(password, safe='')}@{rest}"


class DetectConfig(Section):
    """The person detector."""

    model: str = Field("yolov8n_person", description="a shipped name, a manifest (.yaml), or an ultralytics .pt")
    threshold: float = Field(0.4, gt=0, lt=1)
    every: int = Field(1, ge=1, description="detect on every N-th frame; boxes are predicted in between")
    size: int | None = Field(
        None, ge=64, le=4096, multiple_of=32, description="long side of the network's input; else the model's own (640)"
    )
    batch: int = Field(4, ge=1, le=32, description="at most so many frames of different cameras at once")
    precision: Precision | None = Field(None, description="of the detector alone; else the one at top level")
    trust: bool = Field(False, description="load a pickled .pt of unknown origin (it can run code)")


class PoseConfig(Section):
    """The key-point network."""

    model: str = "litehrnet18_256x192"
    flip_test: bool = False
    every: int = Field(
        1,
        ge=1,
        description="pose each person on every N-th frame, or the nearest step that agrees with detect.every; "
        "the filter carries the others",
    )
    small_model: str | None = Field(None, description="a second network, for people lower than `small_below` pixels")
    small_below: int = Field(34, ge=1, description="height of a box in pixels; at 34 the shipped networks are level")
    precision: Precision | None = Field(None, description="of the key-point network alone; else the one at top level")
    trust: bool = False


class TrackConfig(Section):
    """Identity over time; lifetimes are seconds of camera time."""

    lost_after: Duration = Field(1.0, description="a person not seen for so long is gone")
    confirm_after: int = Field(
        3, ge=1, description="so many sightings confirm a person, and 0.2 s from the first on; 1: the first does"
    )
    low_threshold: float = Field(
        0.1,
        gt=0,
        le=1,
        description="weak detections from here on, at most `detect.threshold`, may carry a known person",
    )


class SmoothConfig(Section):
    """The Kalman filter of each person's key points."""

    enabled: bool = True
    offline: bool = Field(False, description="recordings: a backward (Rauch-Tung-Striebel) pass, no lag")
    acceleration: float | None = Field(None, gt=0, le=1e6, description="process noise, body heights per second squared")
    noise: float | None = Field(None, gt=0, le=1e6, description="measurement noise of a sure joint, body heights")
    gate: float | None = Field(None, gt=0, le=1e6, description="Mahalanobis distance beyond which a joint is rejected")


class Config(Section):
    """The whole configuration."""

    cameras: dict[str, CameraConfig] = Field(min_length=1)
    detect: DetectConfig = DetectConfig()
    pose: PoseConfig = PoseConfig()
    track: TrackConfig = TrackConfig()
    smooth: SmoothConfig = SmoothConfig()
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps, or RUNTIME:NAME such as openvino:GPU")
    runtime: RuntimeName = "auto"
    precision: Precision = "auto"
    sinks: tuple[tuple[str, SinkConfig], ...] = Field(default_factory=lambda: (_read_sink("jsonl", 0),))

    @field_validator("cameras")
    @classmethod
    def _names(cls, value: dict[str, CameraConfig]) -> dict[str, CameraConfig]:
        for name in value:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
                raise ValueError(f'"{redact_url(name)}" is no camera name: letters, digits, "_", "-" and "." are')
        return value

    @field_validator("device")
    @classmethod
    def _is_a_device(cls, value: str) -> str:
        if not _DEVICE.fullmatch(value):
            raise ValueError("none of auto, cpu, cuda, cuda:1, mps, openvino:GPU, onnx:tensorrt")
        return value

    @field_validator("sinks", mode="before")
    @classmethod
    def _sinks(cls, value: object) -> object:
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise ValueError("a list of sinks is wanted, such as [{jsonl: {}}, {display: {}}]")
        return tuple(_read_sink(item, position) for position, item in enumerate(value))

    @model_validator(mode="after")
    def _weak_is_not_above_sure(self) -> Config:
        low, high = self.track.low_threshold, self.detect.threshold
        if low > high and "low_threshold" in self.track.model_fields_set:  # the default gives way to a low threshold
            raise ValueError(f"track.low_threshold: {low:g}; at most detect.threshold, {high:g}, is needed")
        return self

    @model_validator(mode="after")
    def _outputs_are_apart(self) -> Config:
        if len(self.cameras) > 1:
            for name, sink in self.sinks:
                path = getattr(sink, "path", None)
                if path is not None and "{camera}" not in path:
                    raise ValueError(
                        f'sinks: {name}: "{path}" is one file for {len(self.cameras)} cameras; put {{camera}} in it'
                    )
        return self

    def public(self) -> dict[str, Any]:
        """The effective configuration as plain data, free of credentials."""
        data = self.model_dump(mode="json", exclude_none=True)
        data["track"]["low_threshold"] = min(self.track.low_threshold, self.detect.threshold)
        data["sinks"] = [{name: sink.model_dump(mode="json", exclude_none=True)} for name, sink in self.sinks]
        for camera in data["cameras"].values():
            for key in ("url", "detect_url"):
                if key in camera:
                    camera[key] = redact_url(camera[key])
            for key in ("user", "password"):
                if key in camera:
                    camera[key] = MARK
        return data


def _read_sink(item: object, position: int) -> tuple[str, SinkConfig]:
    if isinstance(item, tuple):
        return item
    if isinstance(item, str):
        item = {item: {}}
    if not isinstance(item, Mapping) or len(item) != 1:
        raise ValueError(
            f"sink {position + 1} must be one name with its options, such as {{record: {{path: out.mp4}}}}"
        )
    ((name, options),) = item.items()
    if name not in SINKS:
        raise ValueError(f'"{name}" is no sink{nearest(str(name), SINKS)}')
    if options is not None and not isinstance(options, Mapping):
        raise ValueError(f"{name}: {WANTED['model_type']} (given: {options!r})")
    kind: type[SinkConfig] = load(SINKS, name)
    try:
        return name, kind.model_validate(options or {})
    except ValidationError as error:
        raise ValueError(f"{name}.{explain(error, kind)}") from error


def validate(data: Mapping[str, Any], where: str = "configuration") -> Config:
    """Typed configuration from parsed YAML, whose credentials no log will show from now on; raises ConfigError, one line,
    naming the key."""
    try:
        config = Config.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"{where}: {explain(error, Config)}") from error
    for camera in config.cameras.values():
        remember(camera.full_url)
        remember(camera.analysed_url)
    return config
