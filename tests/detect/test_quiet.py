"""Ultralytics leaves no traces in the libraries that it shares with us."""

from __future__ import annotations

import subprocess
import sys


def test_pillow_opens_pictures_as_before() -> None:
    code = (
        "import PIL.Image; before = PIL.Image.open\n"
        "from streampose.detect.quiet import silence_ultralytics\n"
        "silence_ultralytics()\n"
        "import ultralytics.nn.tasks\n"
        "assert PIL.Image.open is before\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
