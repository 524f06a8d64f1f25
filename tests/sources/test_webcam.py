"""Cameras at this machine: input devices are live, and one that is not there may come."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from streampose.errors import TransientSourceError
from streampose.sources import decoder, libav
from streampose.sources.base import Picture
from streampose.sources.libav import VideoOptions
from streampose.sources.open import is_live, kind_of, open_source
from streampose.sources.video import VideoSource

QUICK = VideoOptions(open_timeout_s=1.0, read_timeout_s=1.0)


def test_an_input_device_is_a_live_camera(monkeypatch: pytest.MonkeyPatch) -> None:
    """No webcam is at hand: another of libav's input devices, which paints, goes the same way as V4L2."""
    monkeypatch.setattr(libav, "WEBCAM_DEVICE", "lavfi")
    monkeypatch.setattr(decoder, "KEY_WAIT_S", 0.1)  # it marks no key frames, for which five seconds would be waited
    source = VideoSource("testsrc=size=320x240:rate=25,realtime", QUICK, webcam=True)
    info = source.open()
    assert (info.kind, info.live, info.width, info.height) == ("webcam", True, 320, 240)
    pictures = [item for item in islice(source.frames(lambda: False), 10) if isinstance(item, Picture)]
    source.close()
    assert len(pictures) >= 9
    assert {picture.image.shape for picture in pictures} == {(240, 320, 3)}
    steps = np.diff([picture.time_s for picture in pictures])
    assert steps == pytest.approx([0.04] * len(steps), abs=1e-3)
    assert pictures[0].image.std() > 20  # a test card, not a flat field


def test_a_webcam_that_is_not_there_may_come_later() -> None:
    source = VideoSource("/dev/video97", QUICK, webcam=True)
    with pytest.raises(TransientSourceError, match="plug it in"):
        source.open()


def test_a_webcam_by_its_stable_name_is_one(tmp_path: Path) -> None:
    (tmp_path / "yard").symlink_to("/dev/video97")
    for name in ("/dev/v4l/by-id/usb-046d_HD_Pro-video-index0", str(tmp_path / "yard")):
        assert (kind_of(name), is_live(name)) == ("webcam", True)
        with pytest.raises(TransientSourceError, match="plug it in"):
            open_source(name).open()
    (tmp_path / "clip.mp4").write_bytes(b"")
    (tmp_path / "link.mp4").symlink_to(tmp_path / "clip.mp4")
    assert kind_of(str(tmp_path / "link.mp4")) == "video"
