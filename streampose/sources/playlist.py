"""What an HLS playlist says of the lengths of its segments, which libav does not hand on."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import urljoin

from streampose.sources import libav

if TYPE_CHECKING:
    from streampose.sources.libav import VideoOptions

MOST_BYTES = 2**20  # of a playlist: ten hours of segments of two seconds
_EXACT = re.compile(r"^#EXTINF:\s*\d*\.\d", re.MULTILINE)


def may_be_rounded(url: str, options: VideoOptions) -> bool:
    """Whether the lengths in the playlist at `url`, or in the first of those that it names, are whole seconds without
    decimals, as they must be before version 3 (RFC 8216, 4.3.2.1). What cannot be read again is not."""
    import av

    try:
        text = _text(url, options)
        if "#EXT-X-STREAM-INF" in text:
            named = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
            text = _text(urljoin(url, named[0]), options) if named else text
    except (av.error.FFmpegError, RuntimeError, ValueError, OSError):
        return False
    return _EXACT.search(text) is None


def _text(url: str, options: VideoOptions) -> str:
    """What `url` holds, by libav and so with its user, password and headers, within the limits of `options`."""
    data = b""
    with libav.open_container(url, replace(options, hwaccel="none"), plain_bytes=True) as container:
        for packet in container.demux():
            data += bytes(packet)
            if len(data) > MOST_BYTES:
                break
    return data.decode("utf-8", "replace")
