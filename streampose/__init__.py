"""streampose: watches camera feeds and recordings, finds every person and places 17 key points on each."""

__version__ = "0.1.0"
