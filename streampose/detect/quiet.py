"""Ultralytics imported without its side effects: no settings kept, no network asked, nothing installed.

On import the library writes a settings file and looks whether the machine is on line; both are governed by environment
variables that must be set before. Its settings go into a folder of this process that is removed when it ends. It also puts
a function of its own in the place of `PIL.Image.open`, which answers a torn picture by looking for a library to install;
Pillow's is put back.
"""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import sys
import tempfile


def silence_ultralytics() -> None:
    """Set what must be set before the first `import ultralytics`; call it right before each such import."""
    if "ultralytics" in sys.modules:
        return
    folder = tempfile.mkdtemp(prefix="streampose-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ.update(
        YOLO_CONFIG_DIR=folder, YOLO_OFFLINE="true", YOLO_AUTOINSTALL="false", YOLO_VERBOSE="false", YOLO_SYNC="false"
    )
    import PIL.Image

    pillow_open = PIL.Image.open
    import ultralytics.utils

    PIL.Image.open = pillow_open
    ultralytics.utils.LOGGER.setLevel(logging.ERROR)
