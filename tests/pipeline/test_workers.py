"""WorkerGroup: failures are raised in the main thread, nothing waits for ever, what is stuck is named and left behind."""

from __future__ import annotations

import logging
import sys
import threading

import pytest

from streampose.errors import SourceError
from streampose.pipeline.channel import Channel
from streampose.pipeline.workers import Worker, WorkerGroup


def test_a_failure_wakes_everybody_and_is_raised_here(caplog: pytest.LogCaptureFixture) -> None:
    channel: Channel[int] = Channel("c", 1, "lossless")
    ended: list[str] = []

    def reader() -> None:
        try:
            channel.get()
        finally:
            ended.append("reader")

    def fails() -> None:
        raise SourceError("the cable is cut")

    def run() -> None:
        with WorkerGroup() as group:
            group.adopt(channel)
            group.start("reader", reader)
            group.start("fails", fails)

    with pytest.raises(SourceError, match="the cable is cut"):
        run()
    assert ended == ["reader"]
    assert caplog.text == "", "nobody had to be left behind"
    assert not [t for t in threading.enumerate() if t.name in ("reader", "fails")]


def test_several_failures_are_raised_together() -> None:
    both = threading.Barrier(2)

    def fails(what: str) -> None:
        both.wait(5)
        raise ValueError(what)

    def run() -> None:
        with WorkerGroup() as group:
            group.start("one", lambda: fails("one"))
            group.start("two", lambda: fails("two"))

    with pytest.raises(ExceptionGroup) as raised:
        run()
    assert sorted(str(e) for e in raised.value.exceptions) == ["one", "two"]


def test_an_error_in_the_block_aborts_the_workers_and_stays_the_error() -> None:
    channel: Channel[int] = Channel("c", 1, "lossless")

    def run() -> None:
        with WorkerGroup() as group:
            group.adopt(channel)
            group.start("reader", lambda: print(channel.get()))
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        run()


def test_closed_channels_end_workers_quietly() -> None:
    channel: Channel[int] = Channel("c", 1, "lossless")
    with WorkerGroup() as group:
        worker = group.start("reader", lambda: print(channel.get()))
        channel.close()
    assert worker.error is None
    assert not worker.running


def test_a_thread_can_tell_that_it_was_given_up() -> None:
    group = WorkerGroup()
    back = threading.Event()
    told: dict[str, bool] = {}

    def hangs(name: str) -> None:
        back.wait(60)
        told[name] = group.given_up()

    workers = [group.start("read:gate", lambda name=name: hangs(name), abandonable=True) for name in ("old", "new")]
    group.abandon(workers[0])
    back.set()
    for worker in workers:
        worker.thread.join()
    assert told == {"old": True, "new": False}
    assert not group.given_up()


def test_a_stuck_thread_is_named_and_left_behind_after_the_deadline(caplog: pytest.LogCaptureFixture) -> None:
    release = threading.Event()
    with caplog.at_level(logging.ERROR), WorkerGroup(deadline_s=0.2) as group:
        stuck = group.start("decode:stuck", lambda: release.wait(60) and None)
        group.stop()
    assert stuck.running, "the block waited for it"
    assert "decode:stuck" in caplog.text
    release.set()
    stuck.thread.join()


def test_an_abandoned_worker_is_not_waited_for_and_its_error_is_ignored() -> None:
    release = threading.Event()

    def stuck() -> None:
        release.wait(30)
        raise ValueError("too late")

    with WorkerGroup(deadline_s=30) as group:
        worker = group.start("read:gate", stuck, abandonable=True)
        group.abandon(worker)
        assert group.abandoned() == ["read:gate"]
    release.set()
    worker.thread.join(5)
    assert group.abandoned() == []
    assert group.errors() == []


def test_ended_abandonable_workers_are_forgotten() -> None:
    with WorkerGroup() as group:
        for _ in range(50):
            group.start("read:gate", lambda: None, abandonable=True).thread.join(5)
        assert len(group._workers) <= 2


def test_workers_that_several_threads_start_at_once_are_all_kept() -> None:
    group = WorkerGroup()
    release = threading.Event()
    workers: list[Worker] = []

    def starts() -> None:
        for _ in range(50):
            worker = group.start("read:gate", lambda: release.wait(60) and None, abandonable=True)
            group.abandon(worker)
            workers.append(worker)

    starters = [threading.Thread(target=starts) for _ in range(6)]
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for starter in starters:
            starter.start()
        for starter in starters:
            starter.join()
        known = len(group.abandoned())
    finally:
        sys.setswitchinterval(interval_s)
        release.set()
    for worker in workers:
        worker.thread.join(60)
    assert (len(workers), known) == (300, 300)
