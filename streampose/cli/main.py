"""The command line: parses, calls, and turns every expected error into one line and its exit code."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Annotated, Any, TextIO, cast

import typer

from streampose import __version__
from streampose.errors import EXIT_BUG, SinkError, StreamposeError, UsageError, words_of

EXIT_CODES = (
    "Exit codes: 0 done · 1 the run failed · 2 usage or configuration · 3 a camera, video or picture cannot be read "
    "(what is cut or damaged is read as far as it goes, which is said, and is no failure) · "
    "4 a model · 5 data or results · 6 an output cannot be written · 70 a bug, with its traceback · "
    "130 ended by Ctrl-C, 143 by SIGTERM, after every file was closed."
)

app = typer.Typer(
    name="streampose",
    help="Watches camera feeds and recordings, finds every person, places key points on each, and writes what it saw.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"streampose {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and end.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Also say what is chosen and why.")] = False,
) -> None:
    from streampose.redact import install

    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO, format="%(levelname).1s %(message)s", stream=sys.stderr
    )
    for name in ("PIL", "libav", "openvino", "nncf", "faster_coco_eval"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it warns where it cannot keep its list of fonts
    install()


def register() -> None:
    """Hang every verb into the app; each verb imports what it needs when it is called."""
    from streampose.cli import (
        annotate,
        bench,
        doctor,
        evaluate,
        export,
        models,
        plot,
        reference,
        run,
        train_detector,
        train_pose,
        train_refiner,
        verify,
    )

    app.command("run")(run.run)
    app.command("annotate")(annotate.annotate)
    app.command("check")(run.check)
    app.command("doctor")(doctor.doctor)
    app.command("export")(export.export)
    app.command("plot")(plot.plot)
    app.command("verify")(verify.verify)
    app.command("eval")(evaluate.evaluate)
    train = typer.Typer(help="The very commands that made the shipped weights.", no_args_is_help=True)
    train.command("pose")(train_pose.train_pose_command)
    train.command("detector")(train_detector.train_detector_command)
    train.command("refiner")(train_refiner.train_refiner_command)
    app.add_typer(train, name="train")
    app.add_typer(models.app, name="models")
    app.add_typer(bench.app, name="bench")
    app.command("reference", hidden=True)(reference.reference)


register()


def main() -> None:
    """The `streampose` command."""
    for name, mode in (
        ("stdin", "r"),
        ("stdout", "w"),
        ("stderr", "w"),
    ):  # so each gets its own number, and no output does
        if getattr(sys, name) is None:  # closed by whoever started us
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115  (to the very end of the process)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal or pipe that is not UTF-8, a file name that is not
        sys.stdout.reconfigure(errors="backslashreplace")
    warnings.filterwarnings("ignore", module=r"PIL\.")  # of damaged EXIF and the like, where the picture is whole
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        with contextlib.redirect_stdout(cast(TextIO, _Output(sys.stdout, nowhere))):
            code = _outcome(_run)
            unwritten = _outcome(sys.stdout.flush)
    sys.exit(code or unwritten)


def _run() -> int | None:
    try:
        os.getcwd()
    except OSError as error:
        raise UsageError(f"the working directory is gone ({words_of(error)}); change into one that is there") from error
    return cast(int | None, app(standalone_mode=False))


class _Output:
    """Standard output, which is a sink like any other: where it takes nothing (a full disk), that is a SinkError, once. A
    reader that is gone has read enough, and is no fault."""

    def __init__(self, out: TextIO, nowhere: TextIO) -> None:
        self._out, self._nowhere = out, nowhere

    def __getattr__(self, name: str) -> Any:
        return getattr(self._out, name)

    def write(self, text: str) -> int:
        with self._fault():
            self._out.write(text)
        return len(text)

    def flush(self) -> None:
        with self._fault():
            self._out.flush()

    @contextlib.contextmanager
    def _fault(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            os.dup2(self._nowhere.fileno(), self._out.fileno())  # for what is kept, which Python writes at its end
            if not isinstance(error, BrokenPipeError):
                raise SinkError(f"standard output cannot be written ({words_of(error)}); send it elsewhere") from error


def _outcome(what: Callable[[], int | None]) -> int:
    """The exit code with which `what` ends; what went wrong is said."""
    try:
        return what() or 0
    except StreamposeError as error:
        _say(*error.lines)
        return error.exit_code
    except BaseExceptionGroup as group:
        expected, bugs = group.split(StreamposeError)
        if bugs is not None:
            return _bug(bugs)
        leaves = [leaf for leaf in _leaves(expected) if isinstance(leaf, StreamposeError)]
        for leaf in leaves:
            _say(*leaf.lines)
        return max(leaf.exit_code for leaf in leaves)
    except KeyboardInterrupt:
        _say("interrupted")
        return 130
    except ImportError as error:
        return _missing_library(error)
    except Exception as error:  # noqa: BLE001  (the outermost boundary)
        return _framework(error)


def _leaves(group: BaseExceptionGroup[BaseException] | None) -> list[BaseException]:
    if group is None:
        return []
    return [leaf for e in group.exceptions for leaf in (_leaves(e) if isinstance(e, BaseExceptionGroup) else [e])]


def _say(*lines: str) -> None:
    from streampose.redact import one_line, redact

    with contextlib.suppress(OSError):  # where nobody can hear it, the exit code still tells
        for line in lines:
            print(f"streampose: {one_line(redact(line))}", file=sys.stderr)


def _framework(error: Exception) -> int:
    """Usage errors and exits of typer itself; everything else is a bug."""
    code = getattr(error, "exit_code", None)
    if code is None:
        return _bug(error)
    if hasattr(error, "format_message"):
        _say(f"{' '.join(error.format_message().split())} (`streampose --help` lists what there is)")
    return int(code)


def _missing_library(error: ImportError) -> int:
    if "libGL" in str(error) or "libgthread" in str(error) or "libglib" in str(error):
        _say(f"OpenCV needs a system library: {error}; install it with: apt-get install libgl1 libglib2.0-0")
        return 1
    return _bug(error)


def _bug(error: BaseException) -> int:
    from streampose.redact import redact

    text = redact("".join(traceback.format_exception(error)))
    print(f"{text}streampose: this is a bug; please report the lines above", file=sys.stderr)
    return EXIT_BUG
