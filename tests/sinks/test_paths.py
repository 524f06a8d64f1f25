"""Whether an output can be written is found out before it is written, and nothing that is there is touched."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from made_results import make_result

from streampose.build_sinks import check_outputs, first_files
from streampose.config import validate
from streampose.errors import ConfigError, SinkError
from streampose.sinks import write_lock
from streampose.sinks.base import Sink
from streampose.sinks.draw import DrawSkeleton
from streampose.sinks.jsonl import JsonlSink
from streampose.sinks.paths import Names, check_writable, create, numbered
from streampose.sinks.record import RecordSink
from streampose.sinks.reserve import Reserved
from streampose.sinks.video_file import VideoFile

if sys.platform == "linux":
    import fcntl


def test_what_is_there_stays_as_it_is_and_nothing_is_left_behind(tmp_path: Path) -> None:
    path = tmp_path / "gate.jsonl"
    path.write_text("a line\n")
    os.utime(path, (1e9, 1e9))
    check_writable(path)
    check_writable(tmp_path / "deep" / "er" / "gate.mp4")
    assert path.read_text() == "a line\n"
    assert path.stat().st_mtime == 1e9
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["deep", "er", "gate.jsonl"]


def test_the_second_file_of_a_camera_is_not_the_first_of_another() -> None:
    cameras = {name: {"url": "rtsp://10.0.0.2/"} for name in ("a", "a-2", "a-4")}
    sinks = [{"record": {"path": "{camera}.mp4", "mode": "both"}}, "jsonl", {"pictures": {}}]
    taken = first_files(validate({"cameras": cameras, "sinks": sinks}))
    assert len(taken) == 12
    for path, ending in (("a", ".mp4"), ("out/a", ".jsonl"), ("out/a", "")):
        names = [numbered(Path(f"{path}{ending}"), number, taken) for number in range(1, 5)]
        assert names == [Path(f"{path}{end}{ending}") for end in ("", "-3", "-5", "-6")]
    assert numbered(Path("a-2.mp4"), 1, taken) == Path("a-2.mp4")
    rolled = validate({"cameras": cameras, "sinks": [{"record": {"segment": "10m"}}, "jsonl"]})
    assert not first_files(rolled)


def test_a_name_is_given_once_in_a_run_whoever_asks(tmp_path: Path) -> None:
    a, other = tmp_path / "a.mp4", tmp_path / "a-2.mp4"
    names = Names([a, tmp_path / "a-3.mp4"])
    assert [names.give(a).name for _ in range(3)] == ["a.mp4", "a-2.mp4", "a-4.mp4"]
    names.take([other, tmp_path / "a-5.mp4"])
    assert names.give(a).name == "a-6.mp4", "a-5 begins with this name and may be about to"
    assert [names.give(other).name for _ in range(2)] == ["a-2-2.mp4", "a-2-3.mp4"], "a has written a-2.mp4"
    assert names.give(tmp_path / "a-5.mp4").name == "a-5.mp4"
    assert names.give(a).name == "a-7.mp4"


def test_two_sinks_of_a_camera_that_is_changed_keep_all_their_files(tmp_path: Path) -> None:
    """The second file of one would be the first of the other, and they have made unlike numbers of them."""
    one, two = tmp_path / "a.mp4", tmp_path / "a-2.mp4"
    names = Names([one, two])
    before = [names.give(first) for first in (one, one, one, two)]
    after = [names.give(first) for first in (one, two, two)]
    assert len(set(before + after)) == 7
    assert [path.name for path in before] == ["a.mp4", "a-3.mp4", "a-4.mp4", "a-2.mp4"]


def test_names_of_earlier_files_are_left_out_on_demand_and_not_used_up(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    for name in ("a.jsonl", "a-2.jsonl"):
        (tmp_path / name).write_text("an earlier record")
    names = Names([path, tmp_path / "a-3.jsonl"])
    assert names.give(path, replace=False).name == "a-4.jsonl"
    assert names.give(path).name == "a.jsonl"
    assert names.give(path).name == "a-2.jsonl"
    assert names.give(Path("/dev/null"), replace=False) == Path("/dev/null"), "a device is no file that could be lost"


@pytest.mark.parametrize("mode", [0o555, 0o444])
def test_a_folder_without_permission_is_one_line(mode: int) -> None:
    """Root may write everywhere, so it looks as somebody else; its folders for tests are closed to others."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(mode)
        mine = os.geteuid()
        if mine == 0:
            os.seteuid(65534)
        try:
            with pytest.raises(SinkError, match=r"gate\.jsonl: .*no permission"):
                check_writable(Path(folder) / "gate.jsonl")
            with pytest.raises(SinkError, match=r"gate\.jsonl: .*no permission"):
                JsonlSink(Path(folder) / "gate.jsonl", "gate", {}).close()
            with pytest.raises(SinkError, match=r"\.jsonl: .*no permission"):
                JsonlSink(Path(folder) / "{date}.jsonl", "gate", {}, segment_s=600).close()
        finally:
            os.seteuid(mine)
            Path(folder).chmod(0o755)


def test_a_name_that_is_too_long_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match="the name is too long; choose a shorter one"):
        check_writable(tmp_path / f"{'x' * 300}.mp4")


@pytest.mark.parametrize(
    ("sink", "blocked"),
    [
        ("record: {path: '%s/{camera}.mp4'}", "yard.mp4"),
        ("record: {path: '%s/{camera}.mp4', mode: source}", "yard.source.mp4"),
        ("record: {path: '%s/{camera}.mp4', mode: both}", "gate.source.mp4"),
        ("jsonl: {path: '%s/{camera}.jsonl'}", "gate.jsonl"),
    ],
)
def test_every_file_of_every_camera_is_looked_at(tmp_path: Path, sink: str, blocked: str) -> None:
    import yaml

    cameras = {"gate": {"url": "rtsp://10.0.0.2/"}, "yard": {"url": "rtsp://10.0.0.3/"}}
    config = validate({"cameras": cameras, "sinks": [yaml.safe_load(f"{{{sink % tmp_path}}}")]})
    check_outputs(config)
    (tmp_path / blocked).mkdir()
    with pytest.raises(SinkError, match=f"{blocked}: this is a folder"):
        check_outputs(config)


@pytest.mark.parametrize("sink", ["record: {path: '%s/{camera}.mp4', segment: 10m}", "pictures: {path: '%s/{camera}'}"])
def test_of_files_that_roll_and_of_pictures_the_folder_is_looked_at(tmp_path: Path, sink: str) -> None:
    import yaml

    config = validate({"cameras": {"gate": {"url": "x.mp4"}}, "sinks": [yaml.safe_load(f"{{{sink % tmp_path}}}")]})
    check_outputs(config)
    assert (tmp_path / "gate").is_dir()
    (tmp_path / "gate").rmdir()
    (tmp_path / "gate").touch()
    with pytest.raises(SinkError, match="a part of that path is a file"):
        check_outputs(config)


@pytest.mark.parametrize("sink", ["record: {path: 'in/gate.mp4'}", "record: {path: 'in/gate.mp4', mode: both}"])
@pytest.mark.parametrize("read", ["in/gate.mp4", "file://in/gate.mp4", "linked.mp4", "in/gate.source.mp4"])
def test_what_is_read_is_not_written_over(
    sink: str, read: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import yaml

    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    Path("in/gate.mp4").write_text("a recording")
    Path("in/gate.source.mp4").write_text("another")
    Path("linked.mp4").symlink_to("in/gate.mp4")
    config = validate({"cameras": {"gate": {"url": read}}, "sinks": [yaml.safe_load(f"{{{sink}}}")]})
    if "source" in read and "both" not in sink:
        check_outputs(config)
        return
    with pytest.raises(SinkError, match="this is what is read, and would be lost"):
        check_outputs(config)


WRITER = """
import sys
from pathlib import Path
from made_results import make_result
from streampose.pose.skeleton import load_skeleton
from streampose.sinks.draw import DrawSkeleton
from streampose.sinks.jsonl import JsonlSink
from streampose.sinks.record import RecordSink
coco, path = load_skeleton("coco17"), sys.argv[1]
if path.endswith(".jsonl"):
    sink = JsonlSink(path, "gate", {})
else:
    sink = RecordSink(path, "gate", DrawSkeleton(coco.sides, coco.edges))
sink.write(make_result(0, 0.0))
print("begun", flush=True)
sys.stdin.read()
sink.close()
"""


@contextmanager
def another_run(path: Path) -> Iterator[None]:
    """Another process that has begun to write the record or video `path`."""
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here), str(here.parents[1])])}
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        yield
        process.stdin.close()
        assert process.wait() == 0


@pytest.mark.skipif(sys.platform != "linux", reason="the lock is one of Linux")
@pytest.mark.parametrize("name", ["gate.jsonl", "gate.mp4", "gate.mkv"])
def test_what_another_run_is_writing_is_refused_and_left_alone(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    config = validate({"cameras": {"gate": {"url": "test:people"}}, "sinks": [{sink_of(path): {"path": str(path)}}]})
    with another_run(path):
        before = path.read_bytes()
        for attempt in (lambda: check_outputs(config), lambda: create(path)):
            with pytest.raises(SinkError, match=rf"{name}: is being written by another run"):
                attempt()
        assert path.read_bytes() == before
    check_outputs(config)
    os.close(create(path))
    assert path.stat().st_size == 0


@pytest.mark.skipif(sys.platform != "linux", reason="the lock is one of Linux")
def test_what_is_reserved_is_not_emptied_and_its_own_sinks_may_write_it(tmp_path: Path) -> None:
    earlier, new, unused = tmp_path / "earlier.jsonl", tmp_path / "new.jsonl", tmp_path / "unused.mp4"
    earlier.write_text("an earlier result")
    outputs = Reserved()
    outputs.take([earlier, new, unused, Path(os.devnull)])
    assert earlier.read_text() == "an earlier result"
    nobody = JsonlSink(new, "new", {})
    nobody.close()
    assert nobody.outputs() == (str(new),), "what was made to be reserved is no earlier result"
    for path in (earlier, unused):
        done = subprocess.run([sys.executable, "-c", TAKE, str(path)], capture_output=True, text=True, check=False)
        assert f"{path.name}: is being written by another run" in done.stderr
    fd = create(earlier)
    os.write(fd, b"a new one")
    os.close(fd)
    outputs.keep(())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["earlier.jsonl", "new.jsonl"]
    assert new.stat().st_size > 0


@pytest.mark.skipif(sys.platform != "linux", reason="the lock is one of Linux")
def test_what_a_killed_run_left_empty_is_removed_unless_it_is_written(tmp_path: Path) -> None:
    names = ["gate.jsonl", "gate.mp4"]
    killed = [sys.executable, "-c", KILLED, *(str(tmp_path / name) for name in names)]
    assert subprocess.run(killed, check=False).returncode == -9
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    outputs = Reserved()
    outputs.take(tmp_path / name for name in names)
    sink = JsonlSink(tmp_path / "gate.jsonl", "gate", {})
    sink.close()
    outputs.keep(())
    assert [path.name for path in tmp_path.iterdir()] == ["gate.jsonl"]


KILLED = """
import os, signal, sys
from pathlib import Path
from streampose.sinks.reserve import Reserved
Reserved().take(map(Path, sys.argv[1:]))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the lock is one of Linux")
@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT])
def test_a_lock_that_fails_is_one_line_and_nothing_stays(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = fcntl.fcntl

    def fail(fd: int, command: int, *rest: bytes) -> int | bytes:
        if command == fcntl.F_OFD_SETLK:
            raise OSError(code, os.strerror(code))
        return ask(fd, command, *rest)

    monkeypatch.setattr(fcntl, "fcntl", fail)
    open_before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(SinkError, match=r"gate.jsonl: cannot be written: "):
        Reserved().take([tmp_path / "gate.jsonl"])
    assert not list(tmp_path.iterdir())
    assert len(os.listdir("/proc/self/fd")) == open_before


@pytest.mark.skipif(sys.platform != "linux", reason="the lock is one of Linux")
def test_without_proc_a_run_writes_what_it_has_reserved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_lock, "_DESCRIPTORS", str(tmp_path / "proc"))
    path = tmp_path / "gate.jsonl"
    outputs = Reserved()
    outputs.take([path])
    os.close(create(path))
    with pytest.raises(SinkError, match=r"gate.jsonl: is being written by another run"):
        Reserved().take([path])
    outputs.keep(())
    assert not path.exists()


def test_a_name_is_given_while_its_file_comes_and_goes(tmp_path: Path) -> None:
    """A run that ends beside this one removes what it had reserved."""
    path = tmp_path / "gate.jsonl"
    over = threading.Event()

    def come_and_go() -> None:
        while not over.is_set():
            path.write_text("x")
            path.unlink()

    other = threading.Thread(target=come_and_go)
    other.start()
    try:
        for _ in range(5000):
            assert Names().give(path, replace=False).parent == tmp_path
    finally:
        over.set()
        other.join()


@pytest.mark.skipif(sys.platform != "linux", reason="the lock is one of Linux")
def test_what_a_sink_begins_while_it_is_let_go_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sink comes just before the file is removed: it gets it for good, or not at all."""
    path = tmp_path / "gate.jsonl"
    outputs = Reserved()
    outputs.take([path])
    unlink = Path.unlink

    def begin(self: Path) -> None:
        with pytest.raises(SinkError, match=r"gate.jsonl: is being written by another run"):
            create(self)
        unlink(self)

    monkeypatch.setattr(Path, "unlink", begin)
    outputs.keep(())
    monkeypatch.undo()
    fd = create(path)
    assert os.fstat(fd).st_nlink == 1
    os.close(fd)


TAKE = """
import sys
from pathlib import Path
from streampose.sinks.paths import create
create(Path(sys.argv[1]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the lock is one of Linux")
def test_all_are_reserved_or_none(tmp_path: Path) -> None:
    path = tmp_path / "gate.jsonl"
    outputs = Reserved()
    with another_run(path), pytest.raises(SinkError, match=r"gate.jsonl: is being written by another run"):
        outputs.take([tmp_path / "free.jsonl", path])
    assert [path] == list(tmp_path.iterdir())
    with another_run(path):
        pass  # may begin it
    assert path.stat().st_size > 0


@pytest.mark.skipif(sys.platform != "linux", reason="the lock is one of Linux")
def test_what_is_reserved_leaves_files_to_open(tmp_path: Path) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    outputs = Reserved()
    resource.setrlimit(resource.RLIMIT_NOFILE, (400, hard))
    try:
        outputs.take(tmp_path / f"{number}.jsonl" for number in range(300))
        assert len(list(tmp_path.iterdir())) == 50
    finally:
        outputs.keep(())
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert not list(tmp_path.iterdir())


def sink_of(path: Path) -> str:
    return "jsonl" if path.suffix == ".jsonl" else "record"


@pytest.mark.parametrize("name", ["gate.jsonl", "gate.mp4"])
def test_a_reload_may_ask_for_what_this_run_is_writing(name: str, tmp_path: Path, skeleton: DrawSkeleton) -> None:
    path = tmp_path / name
    sink: Sink = JsonlSink(path, "gate", {}) if path.suffix == ".jsonl" else RecordSink(path, "gate", skeleton)
    sink.write(make_result(0, 0.0))
    check_writable(path)
    sink.close()


def test_devices_and_pipes_are_written_by_as_many_as_like(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    for path in (Path("/dev/null"), tmp_path / "pipe"):
        for fd in (create(path), create(path)):
            os.close(fd)
    os.close(reader)


def test_a_video_that_cannot_be_begun_leaves_its_file_free(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        VideoFile(tmp_path / "gate.mp4", (64, 48), start_s=0.0, metadata={}, preset="fastest")
    os.close(create(tmp_path / "gate.mp4"))


def test_two_runs_that_roll_at_one_moment_take_two_files(tmp_path: Path) -> None:
    """Each has names of its own, and neither has begun to write."""
    first = tmp_path / "deep" / "02-30-00.mp4"
    assert [Names().claim(first).name for _ in range(3)] == ["02-30-00.mp4", "02-30-00-2.mp4", "02-30-00-3.mp4"]
    (tmp_path / "file").touch()
    names = Names()
    with pytest.raises(SinkError, match="a part of that path is a file"):
        names.claim(tmp_path / "file" / "02-30-00.mp4")
    assert not names.writing()


@pytest.mark.parametrize("path", ["/dev/stdout", "out.jsonl"])
def test_standard_output_takes_no_record_since_the_report_goes_there(path: str, tmp_path: Path) -> None:
    """Both wrote from its beginning, and the header was lost under the report."""
    (tmp_path / "c.yaml").write_text(f"cameras: {{gate: {{url: 'test:people'}}}}\nsinks: [{{jsonl: {{path: {path}}}}}]")
    command = [sys.executable, "-m", "streampose", "run", "c.yaml"]
    with (tmp_path / "out.jsonl").open("w") as out:
        done = subprocess.run(command, cwd=tmp_path, stdout=out, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 6
    said = f"streampose: {path}: is standard output, where the report of the run goes; name another file"
    assert done.stderr.splitlines() == [said]


@pytest.mark.skipif(os.name == "nt", reason="has them missing")
def test_outputs_are_made_where_flags_of_linux_are_missing(tmp_path: Path) -> None:
    program = f"""
import os, sys
for flag in ("O_CLOEXEC", "O_NONBLOCK"):
    delattr(os, flag)
sys.platform = "win32"
from pathlib import Path
from streampose.sinks import paths, write_lock
fd = paths.create(Path({str(tmp_path / "gate.jsonl")!r}))
os.write(fd, b"line\\n")
os.close(fd)
paths.check_writable(Path({str(tmp_path / "gate.jsonl")!r}))
assert not write_lock.is_being_written(Path({str(tmp_path / "gate.jsonl")!r}))
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "gate.jsonl").read_bytes() == b"line\n"
