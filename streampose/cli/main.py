"""The command line: parses, calls, and turns every expected error into one line and its exit code."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import traceback
import warnings
from typing import Annotated

import typer

from streampose import __version__
from streampose.errors import EXIT_BUG, StreamposeError

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
    for name in ("matplotlib", "PIL", "libav", "openvino", "nncf", "faster_coco_eval"):
        logging.getLogger(name).setLevel(logging.WARNING)
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
    app.add_typer(train, name="train")
    app.add_typer(models.app, name="models")
    app.add_typer(bench.app, name="bench")
    app.command("reference", hidden=True)(reference.reference)


register()


def main() -> None:
    """The `streampose` command."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal or pipe that is not UTF-8, a file name that is not
        sys.stdout.reconfigure(errors="backslashreplace")
    warnings.filterwarnings("ignore", module=r"PIL\.")  # of damaged EXIF and the like, where the picture is whole
    try:
        code = app(standalone_mode=False)
    except StreamposeError as error:
        _say(str(error))
        code = error.exit_code
    except BaseExceptionGroup as group:
        expected, bugs = group.split(StreamposeError)
        if bugs is not None:
            code = _bug(bugs)
        else:
            leaves = [leaf for leaf in _leaves(expected) if isinstance(leaf, StreamposeError)]
            for leaf in leaves:
                _say(str(leaf))
            code = max(leaf.exit_code for leaf in leaves)
    except KeyboardInterrupt:
        _say("interrupted")
        code = 130
    except BrokenPipeError:
        sys.stderr.close()
        code = 0
    except ImportError as error:
        code = _missing_library(error)
    except Exception as error:  # noqa: BLE001  (the outermost boundary)
        code = _framework(error)
    sys.exit(code or 0)


def _leaves(group: BaseExceptionGroup[BaseException] | None) -> list[BaseException]:
    if group is None:
        return []
    return [leaf for e in group.exceptions for leaf in (_leaves(e) if isinstance(e, BaseExceptionGroup) else [e])]


def _say(text: str) -> None:
    from streampose.redact import redact

    with contextlib.suppress(OSError):  # where nobody can hear it, the exit code still tells
        print(f"streampose: {redact(text)}", file=sys.stderr)


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
