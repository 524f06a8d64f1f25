"""What a camera of segments has given already: opened anew, it begins with its last segments, seen or not."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import av
    from av.video.stream import VideoStream

KEPT = 8192  # packets of which it is known that they were given: more than a minute of 60 pictures a second
WAITED_S = 1.0  # a key frame that was waited for so long has just been made

_Key: TypeAlias = tuple[int, int, int]  # stamp, length and checksum


class Seen:
    """The last packets of a camera whose pictures were given, over all its connections; one at a time uses it."""

    def __init__(self) -> None:
        self._keys: dict[_Key, None] = {}

    def add(self, key: _Key) -> None:
        """Take that it was given; the oldest is forgotten for it."""
        self._keys.pop(key, None)
        self._keys[key] = None
        if len(self._keys) > KEPT:
            del self._keys[next(iter(self._keys))]

    def __contains__(self, key: object) -> bool:
        return key in self._keys


class Repeats:
    """Tells of one connection which of its packets and pictures were given by an earlier one.

    Only what comes at once as it begins is asked, up to the first packet that is new or that was waited for, and all of a
    packet must be the same: an encoder that begins its stamps anew, or even its pictures, loses none for long.
    """

    def __init__(self, seen: Seen) -> None:
        self._seen = seen
        self._opening = True
        self._last_s: float | None = None  # when the last packet came
        self._pending: dict[int, _Key] = {}  # by stamp: not yet given
        self._old: set[int] = set()  # stamps of pictures to come that were given before

    def of_before(self, packet: av.Packet[VideoStream], now_s: float, held_back: bool) -> bool:
        """Whether an earlier connection has given this packet's picture. To be asked once of each, as it comes (`now_s`,
        monotonic). `held_back`: it was there before a silence, the last of it, which nothing says of what was given."""
        before_s, self._last_s = self._last_s, now_s
        if packet.pts is None:
            return False
        data = memoryview(packet)
        key = (packet.pts, len(data), zlib.crc32(data))
        waited = before_s is not None and packet.is_keyframe and now_s - before_s > WAITED_S
        known = (key in self._seen and not waited) if not held_back else before_s is not None
        self._opening = self._opening and known
        if self._opening:
            self._old.add(packet.pts)
        else:
            self._pending[packet.pts] = key
            if len(self._pending) > KEPT:
                del self._pending[next(iter(self._pending))]
        return self._opening

    def shows_before(self, pts: int | None) -> bool:
        """Whether the decoded picture with this stamp is one of those."""
        if pts is None or pts not in self._old:
            return False
        self._old.discard(pts)
        return True

    def given(self, pts: int | None) -> None:
        """Take that the picture with this stamp was taken, and with it those before it, which a decoder may skip."""
        if pts is None:
            return
        for stamp in [stamp for stamp in self._pending if stamp <= pts]:
            self._seen.add(self._pending.pop(stamp))
