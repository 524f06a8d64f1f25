"""streampose: watches camera feeds and recordings, finds every person and places 17 key points on each."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from streampose.api import Watcher, annotate_images, open_source

__version__ = "0.1.0"
__all__ = ["Watcher", "__version__", "annotate_images", "open_source"]


if not TYPE_CHECKING:  # a type checker would take every name for one of ours

    def __getattr__(name: str) -> Any:
        """The API is imported when it is first used, so that `import streampose` stays light."""
        if name in __all__:
            return getattr(import_module("streampose.api"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
