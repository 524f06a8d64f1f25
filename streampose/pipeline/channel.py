"""The only queue: bounded, closable from both ends, with its overflow policy in its name.

A `lossless` channel makes the writer wait; a `latest` channel lets the oldest waiting frame give way and hands it to
`on_drop`, so that nothing is lost uncounted. Control messages are never dropped and keep their order among the frames,
which is why they do not count against the capacity: a source makes few of them.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Literal, TypeAlias, TypeVar, get_args

from streampose.messages import Control

T = TypeVar("T")
Policy: TypeAlias = Literal["lossless", "latest"]
_CONTROL: tuple[type, ...] = get_args(Control)


class ChannelClosed(Exception):
    """Nothing more will come (to a reader), or nothing more is taken (from a writer)."""


@dataclass(frozen=True, slots=True)
class ChannelStats:
    """What went through: put = got + dropped + waiting, at every moment, `frames` of those put being no control messages.
    `peak` is the most that ever waited."""

    put: int
    frames: int
    got: int
    dropped: int
    waiting: int
    peak: int


class Channel(Generic[T]):
    """A bounded queue between one or more writers and one reader.

    `capacity` counts frames (everything that is not a control message) and has no default: who makes a queue knows
    why it is that long. `close` ends the writing, the reader drains; `abort` ends both at once and wakes every waiter.
    """

    def __init__(self, name: str, capacity: int, policy: Policy, on_drop: Callable[[T], None] | None = None) -> None:
        if capacity < 1:
            raise ValueError(f"channel {name}: capacity must be at least 1, got {capacity}")
        self.name = name
        self.capacity = capacity
        self.policy = policy
        self._on_drop = on_drop
        # A reader of many channels is told of every put and close, a writer of every item that is taken and of an abort.
        self.on_ready: Callable[[], None] = lambda: None
        self.on_taken: Callable[[], None] = lambda: None
        self._items: deque[T] = deque()
        self._frames = 0
        self._lock = threading.Lock()  # guards everything below and above
        self._readable = threading.Condition(self._lock)
        self._writable = threading.Condition(self._lock)
        self._closed = False
        self._unused: int | None = None
        self._put = self._frames_put = self._got = self._dropped = self._peak = 0
        self._taken_s = time.monotonic()  # when the reader last took something, or could have first

    def put(self, item: T) -> None:
        """Add `item`: waits for room (lossless) or makes room (latest). Raises ChannelClosed after close or abort."""
        dropped: T | None = None
        with self._lock:
            if not isinstance(item, _CONTROL):
                while self._frames >= self.capacity and not self._closed and self.policy == "lossless":
                    self._writable.wait()
                if self._closed:
                    raise ChannelClosed(self.name)
                if self._frames >= self.capacity:
                    dropped = self._take_oldest_frame()
                    self._dropped += 1
                self._frames += 1
                self._frames_put += 1
            elif self._closed:
                raise ChannelClosed(self.name)
            if not self._items:
                self._taken_s = time.monotonic()
            self._items.append(item)
            self._put += 1
            self._peak = max(self._peak, len(self._items))
            self._readable.notify()
        if dropped is not None and self._on_drop is not None:
            self._on_drop(dropped)
        self.on_ready()

    def keep_all(self, capacity: int) -> None:
        """From now on `lossless`, with room for `capacity` frames. For the writer, before the frames that it is about."""
        with self._lock:
            self.policy, self.capacity = "lossless", capacity

    def room(self, patience_s: float | None) -> int:
        """How many frames the only writer can put without waiting; waits for the first, but gives 0 when the reader has
        taken nothing of what waits for `patience_s` seconds (None: waits for ever). A `latest` channel takes all.

        Raises ChannelClosed after close or abort.
        """
        with self._lock:
            while self.policy == "lossless" and self._frames >= self.capacity and not self._closed:
                left = None if patience_s is None else self._taken_s + patience_s - time.monotonic()
                if left is not None and left <= 0:
                    return 0
                self._writable.wait(left)
            if self._closed:
                raise ChannelClosed(self.name)
            return self.capacity if self.policy == "latest" else self.capacity - self._frames

    def unused(self) -> int | None:
        """Of how many of the frames, the last that were put, the reader made nothing; None before an abort."""
        with self._lock:
            return self._unused

    def idle_s(self) -> float:
        """Seconds since the reader took something, or since the first of what waits came if that is later."""
        with self._lock:
            return time.monotonic() - self._taken_s

    def get(self, timeout_s: float | None = None) -> T:
        """The oldest item. Raises ChannelClosed at the end, TimeoutError when nothing came in `timeout_s`."""
        with self._lock:
            self._await_item(timeout_s)
            item = self._take()
        self.on_taken()
        return item

    def get_batch(self, max_items: int, wait_s: float | None = None) -> list[T]:
        """Everything that waits, at most `max_items`; waits (at most `wait_s`) for the first item only, for no other."""
        with self._lock:
            self._await_item(wait_s)
            items = [self._take() for _ in range(min(max_items, len(self._items)))]
        self.on_taken()
        return items

    def poll(self) -> T | None:
        """The oldest item, or None when nothing waits. Raises ChannelClosed at the end."""
        with self._lock:
            if not self._items and self._closed:
                raise ChannelClosed(self.name)
            if not self._items:
                return None
            item = self._take()
        self.on_taken()
        return item

    def close(self) -> None:
        """No more items; the reader drains what waits, then meets ChannelClosed."""
        with self._lock:
            self._closed = True
            self._readable.notify_all()
            self._writable.notify_all()
        self.on_ready()

    def abort(self, lost: int = 0) -> None:
        """End now: what waits is dropped (and counted), every blocked put and get wakes with ChannelClosed. `lost`: of so
        many frames that it took last the reader has made nothing."""
        with self._lock:
            self._dropped += len(self._items)
            self._unused = (self._unused or 0) + self._frames + lost
            self._items.clear()
            self._frames = 0
            self._closed = True
            self._readable.notify_all()
            self._writable.notify_all()
        self.on_ready()
        self.on_taken()

    def stats(self) -> ChannelStats:
        with self._lock:
            return ChannelStats(self._put, self._frames_put, self._got, self._dropped, len(self._items), self._peak)

    def _await_item(self, timeout_s: float | None) -> None:
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not self._items:
            if self._closed:
                raise ChannelClosed(self.name)
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise TimeoutError(f"channel {self.name}: nothing came in {timeout_s} s")
            self._readable.wait(left)

    def _take(self) -> T:
        item = self._items.popleft()
        self._got += 1
        self._taken_s = time.monotonic()
        if not isinstance(item, _CONTROL):
            self._frames -= 1
            self._writable.notify()
        return item

    def _take_oldest_frame(self) -> T:
        for position, item in enumerate(self._items):
            if not isinstance(item, _CONTROL):
                del self._items[position]
                self._frames -= 1
                return item
        raise AssertionError("a full channel holds a frame")
