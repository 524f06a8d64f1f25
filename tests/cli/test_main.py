"""The command itself: what other people's packages have to say does not reach the terminal."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from streampose.cli.main import main


def test_damaged_exif_of_a_picture_is_no_warning_of_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tags = PIL.Image.Exif()
    tags[0x010E], tags[0x0132] = "a long description " * 10, "2024:01:01 10:00:00"
    picture = PIL.Image.fromarray(np.zeros((64, 96, 3), np.uint8))
    picture.save(tmp_path / "one.jpg", exif=tags.tobytes()[:-90])
    (tmp_path / "one.yaml").write_text(f"cameras: {{yard: {{url: {tmp_path / 'one.jpg'}}}}}")
    monkeypatch.setattr(sys, "argv", ["streampose", "doctor", "--no-models", str(tmp_path / "one.yaml")])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with pytest.raises(SystemExit) as ended:
            main()
    assert ended.value.code == 0
    assert [str(warning.message) for warning in said] == []
