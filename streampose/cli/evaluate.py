"""`streampose eval`: how good the networks are on labelled pictures, and how well identity is kept on labelled video."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streampose.registry import RUNTIMES

if TYPE_CHECKING:
    from streampose.detect.detector import Detector
    from streampose.evaluate.answers import Progress
    from streampose.evaluate.evaluate import Evaluation
    from streampose.evaluate.selection import Sample
    from streampose.pose.skeleton import Skeleton
    from streampose.runtime.base import Runtime

GOES_WITH = {
    "--mot": ("camera", "coasting", "frames"),
    "--data": (
        "images", "model", "detector", "boxes", "refiner", "flip_test", "person_height", "split", "last", "limit",
        "threshold", "size", "worst", "sheet", "expect", "tolerance", "device", "runtime", "precision", "trust",
    ),
    "--boxes detector": ("detector", "threshold", "size", "trust"),
    "--sheet": ("worst",),
    "--expect": ("tolerance",),
}  # fmt: skip
"""Options, by the names of their parameters, that do nothing without another one."""


def evaluate(
    context: typer.Context,
    result: Annotated[Path | None, typer.Argument(help="With --mot: the JSONL result to measure.")] = None,
    data: Annotated[
        list[Path] | None, typer.Option(help="COCO-format JSON, folder with annotations.json, or zip; repeatable.")
    ] = None,
    images: Annotated[Path | None, typer.Option(help="Folder of the pictures, where --data is a JSON.")] = None,
    model: Annotated[str | None, typer.Option(help="Pose model: a name, manifest or checkpoint.")] = None,
    detector: Annotated[str | None, typer.Option(help="Person detector: a name, manifest or checkpoint.")] = None,
    boxes: Annotated[
        str, typer.Option(help="Whose boxes are posed: gt (the labels), detector, or a JSON of COCO results.")
    ] = "gt",
    refiner: Annotated[
        bool, typer.Option("--refiner/--no-refiner", help="Refine key points where the network brings a refiner.")
    ] = True,
    flip_test: Annotated[bool, typer.Option("--flip-test/--no-flip-test", help="See every crop mirrored too.")] = False,
    person_height: Annotated[
        str, typer.Option(help="Also with each person re-imaged so many pixels high: 96,64,40.")
    ] = "",
    split: Annotated[str | None, typer.Option(help="Only pictures of this split or source.")] = None,
    last: Annotated[int | None, typer.Option(min=1, help="Only the N pictures with the highest id.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most N pictures, evenly spread.")] = None,
    threshold: Annotated[float, typer.Option(min=0.001, max=0.99, help="Least score of a detector's box.")] = 0.005,
    size: Annotated[
        int | None, typer.Option(min=64, max=4096, help="Long side of the detector's input in pixels.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures, as fractions, to FILE.")] = None,
    worst: Annotated[int, typer.Option(min=1, max=400, help="How many people the contact sheet shows.")] = 24,
    sheet: Annotated[Path | None, typer.Option(help="Write a contact sheet (PNG) of the people posed worst.")] = None,
    expect: Annotated[
        float | None, typer.Option(help="The published AP in points; exit 1 where it does not hold.")
    ] = None,
    tolerance: Annotated[float, typer.Option(min=0.0, help="By how many points --expect may be missed.")] = 0.3,
    mot: Annotated[Path | None, typer.Option(help="MOT ground truth of a video; measures identity in RESULT.")] = None,
    coasting: Annotated[
        bool, typer.Option("--coasting/--no-coasting", help="With --mot: count coasting people.")
    ] = True,
    camera: Annotated[str | None, typer.Option(help="With --mot: the camera, where RESULT has several.")] = None,
    frames: Annotated[int | None, typer.Option(min=1, help="With --mot: compare the first N frames.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, openvino:GPU …")] = "auto",
    runtime: Annotated[str, typer.Option(help=f"auto, {', '.join(RUNTIMES)}.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16, fp16 or int8.")] = "auto",
    trust: Annotated[bool, typer.Option(help="Open a pickled .pt of unknown origin (it can run code).")] = False,
) -> None:
    """Measure accuracy on labelled pictures, or identity on labelled video.

    Pictures: `streampose eval --data coco.zip --boxes detector --person-height 64`. Key points by OKS-AP, boxes by AP, both
    by COCO's protocol. Video: `streampose eval --mot GT.txt RESULT.jsonl`, by IDF1, MOTA, HOTA and identity switches.
    """
    from streampose.cli.idle import refuse_idle
    from streampose.errors import UsageError
    from streampose.evaluate.set_files import archive_of, set_name, takes_images
    from streampose.sinks.paths import check_apart, check_writable

    read = [*(data or []), *(path for path in (mot, result) if path is not None)]
    read += [each for path in data or [] for each in (path / "annotations.json", archive_of(path)[0])] + [Path(boxes)]
    for written in (json_file, sheet):
        if written is not None:
            check_apart(written, read)
            check_writable(written)
    if json_file is not None and sheet is not None and json_file.resolve() == sheet.resolve():
        raise UsageError(f"--json {json_file} and --sheet {sheet} are one file; name two")
    given = {
        "--mot": mot is not None,
        "--data": mot is None,
        "--boxes detector": mot is not None or boxes == "detector",
        "--sheet": mot is not None or sheet is not None,
        "--expect": mot is not None or expect is not None,
    }
    if mot is not None and (result is None or data):
        raise UsageError("eval --mot GT.txt wants one RESULT.jsonl, and no --data")
    refuse_idle(context, {wanted: names for wanted, names in GOES_WITH.items() if not given[wanted]})
    if mot is not None and result is not None:
        _tracking(mot, result, camera, coasting, frames, json_file)
        return
    if result is not None or not data:
        raise UsageError("eval wants --data (a COCO-format set), or --mot GT.txt RESULT.jsonl")
    if images is not None and not any(map(takes_images, data)):
        raise UsageError(f"--images {images}: goes with --data FILE.json")
    heights = _heights(person_height)
    if heights and boxes not in ("gt", "detector"):
        raise UsageError(
            f"--person-height: people made small are posed by --boxes gt or detector; {boxes} has no boxes of them"
        )
    asked = {"device": device, "runtime": runtime, "precision": precision}
    from streampose.evaluate.answers import labelled_boxes, read_detections
    from streampose.evaluate.counting import coco_counting
    from streampose.evaluate.dataset import open_keypoint_set
    from streampose.evaluate.evaluate import evaluate as measure
    from streampose.evaluate.expect import check_expected
    from streampose.evaluate.selection import select

    coco_counting()
    with ExitStack() as open_files:
        names = _skeleton(model, refiner).keypoints
        sets = [
            open_files.enter_context(
                open_keypoint_set(path, joints=len(names), names=names, images=images, boxes_only=boxes != "gt")
            )
            for path in data
        ]
        samples = select(sets, split=split, last=last, limit=limit)
        wishes = {"--person-height": heights, "--sheet": sheet, "--expect": expect is not None}
        if idle := [option for option, wish in wishes.items() if wish and not any(sample.posed for sample in samples)]:
            raise UsageError(f"{', '.join(idle)}: nobody here has labelled key points, only boxes can be measured")
        finder = None
        if boxes == "detector":
            finder = _detector(detector, threshold, size, asked | {"trust": trust}, samples)
            open_files.callback(finder.close)
            boxes_of = lambda _, pictures: finder(pictures)  # noqa: E731
        elif boxes == "gt":
            boxes_of = labelled_boxes
        else:
            boxes_of = read_detections(boxes, samples)
        estimator = _pose(model, flip_test, refiner, asked)  # last, for it may take a minute to be compiled
        open_files.callback(estimator.close)
        with _bars(samples) as progress:
            found = measure(
                samples,
                estimator,
                estimator.skeleton,
                boxes_of=boxes_of,
                detector=finder,
                heights_px=heights,
                progress=progress,
            )
        settings = {
            "data": [set_name(path) for path in data],
            "split": split,
            "last": last,
            "limit": limit,
            "boxes": boxes,
            "flip_test": flip_test,
            "model": estimator.manifest.name,
            "model_sha256": estimator.manifest.sha256,
            "refiner_sha256": estimator.manifest.sha256_refiner if refiner else None,
            "detector": None if finder is None else finder.manifest.name,
            "detector_sha256": None if finder is None else finder.manifest.sha256,
            "detector_threshold": None if finder is None else threshold,
            "detector_size": None if finder is None else finder.size,
            **_got(None if finder is None else _ran(finder, samples), "detector_"),
            **_got(estimator.networks[0].runtime),
        }
        _show(found, settings)
        if json_file is not None:
            write_json(json_file, found.as_dict() | {"settings": settings})
        if sheet is not None:
            from streampose.evaluate.contact_sheet import write_sheet

            write_sheet(sheet, found.verdicts[:worst], estimator.skeleton)
            print(f"contact sheet of the {min(worst, len(found.verdicts))} worst: {sheet}")
    if expect is not None and found.keypoints is not None:
        print(check_expected("key-point AP", found.keypoints.ap, expect, tolerance))


def _heights(text: str) -> list[int]:
    from streampose.errors import UsageError
    from streampose.evaluate.reimage import HEIGHTS_PX

    least, most = HEIGHTS_PX
    try:
        heights = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        heights = [0]
    if any(not least <= height <= most for height in heights):
        raise UsageError(f"--person-height {text}: expected pixels between {least} and {most}, such as 96,64,40")
    return heights


def _skeleton(model: str | None, refined: bool) -> Skeleton:
    """What the pose model calls its key points, by its manifest alone."""
    from streampose.models.load import DEFAULT_POSE
    from streampose.models.resolve import resolve
    from streampose.pose.skeleton import load_skeleton

    manifest, _ = resolve(model or DEFAULT_POSE, "pose", refined=refined)
    return load_skeleton(manifest.output.skeleton)


def _pose(model: str | None, flip_test: bool, refined: bool, asked: dict[str, Any]) -> Any:
    from streampose.models.load import DEFAULT_POSE, load_pose

    return load_pose(model or DEFAULT_POSE, flip_test=flip_test, refined=refined, **asked)


def _detector(
    model: str | None, threshold: float, size: int | None, asked: dict[str, Any], samples: Sequence[Sample]
) -> Any:
    """The detector; pictures of many shapes go to torch where other runtimes convert it anew for each shape."""
    from streampose.detect import letterbox
    from streampose.models.load import DEFAULT_DETECTOR, load_detector
    from streampose.models.open import offers, takes_any_size
    from streampose.models.resolve import resolve

    ref = model or DEFAULT_DETECTOR
    manifest, weights = resolve(ref, "detect", trust=asked["trust"])
    long_side = size or max(manifest.input.width, manifest.input.height)
    shapes = {letterbox.plan(s.image.width, s.image.height, long_side).size for s in samples}
    converted_often = len(shapes) > 2 and not takes_any_size(manifest, weights)
    if asked["runtime"] == "auto" and converted_often and "torch" in offers(weights):
        asked = {**asked, "runtime": "torch"}
    return load_detector(ref, threshold=threshold, size=size, **asked)


def _ran(detector: Detector, samples: Sequence[Sample]) -> Runtime:
    """What the detector ran on, once it has seen the pictures."""
    return detector.warm_up(samples[0].image.width, samples[0].image.height)


def _got(runtime: Runtime | None, prefix: str = "") -> dict[str, str | None]:
    """How a network ran, by `prefix`ed keys; None where there was none."""
    got = (None, None, None) if runtime is None else (runtime.name, runtime.device, runtime.precision)
    return dict(zip((f"{prefix}runtime", f"{prefix}device", f"{prefix}precision"), got, strict=True))


def _where(settings: dict[str, Any], prefix: str = "") -> str:
    return f"{settings[f'{prefix}runtime']} {settings[f'{prefix}precision']} on {settings[f'{prefix}device']}"


@contextmanager
def _bars(samples: Sequence[Sample]) -> Iterator[Callable[[str], Progress]]:
    """One progress bar a measurement, on a terminal only."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    people = sum(len(sample.posed) for sample in samples)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Bars(*columns, console=console, disable=not sys.stderr.isatty()) as bars:

        def begin(name: str) -> Progress:
            task = bars.add_task(name, total=len(samples) if name == "clean" else people)
            return lambda done: bars.advance(task, done)

        yield begin


def _show(found: Evaluation, settings: dict[str, Any]) -> None:
    """The figures as tables, in points."""
    from rich.console import Console
    from rich.table import Table

    from streampose.evaluate.evaluate import keypoint_dict

    who = "labelled boxes" if settings["boxes"] == "gt" else f"boxes of {settings['detector'] or settings['boxes']}"
    if settings["detector"]:
        who += f" at {settings['detector_size']} px ({_where(settings, 'detector_')})"
    flip = "flip test" if settings["flip_test"] else "no flip test"
    flip += ", refined" if settings["refiner_sha256"] else ""
    print(f"{settings['model']}: {found.people} people in {found.pictures} pictures, {who}, {flip}, {_where(settings)}")
    console = Console(width=110)
    if found.keypoints is not None and found.tall is not None:
        table = Table("key points", "AP", "AP50", "AP75", "medium", "large", "AR", "people")
        lines = {"all": found.keypoints, "at least 64 px high": found.tall}
        lines |= {f"re-imaged {height} px high": figures for height, figures in found.far.items()}
        for name, figures in lines.items():
            values = keypoint_dict(figures)
            people = values.pop("people")
            table.add_row(name, *(_points(value) for value in values.values()), f"{people:.0f}")
        console.print(table)
    if found.boxes is not None:
        table = Table("boxes", "AP", "AP50", "AR", "people")
        for name, score in found.boxes.items():
            label = f"{name} px high" if name[-1].isdigit() else name
            label = "at least 64 px high" if name == "64" else label
            table.add_row(label, _points(score.ap), _points(score.ap50), _points(score.ar), str(score.people))
        console.print(table)


def _points(value: float | None) -> str:
    return "–" if value is None or value != value else f"{100 * value:.1f}"


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write figures whole or not at all. Raises SinkError."""
    from streampose.export.output import write_text

    write_text(path, [json.dumps(values, indent=1, allow_nan=False), "\n"], "--json")


def _tracking(
    truth: Path, result: Path, camera: str | None, coasting: bool, frames: int | None, json_file: Path | None
) -> None:
    from streampose.evaluate.mot import measure_tracking, read_result, read_truth

    figures = measure_tracking(read_truth(truth), read_result(result, camera=camera, coasting=coasting), frames)
    print(
        f"IDF1 {100 * figures.idf1:.1f}  MOTA {100 * figures.mota:.1f}  HOTA {100 * figures.hota:.1f}  "
        f"id switches {figures.id_switches}  (IDP {100 * figures.idp:.1f}, IDR {100 * figures.idr:.1f}; "
        f"missed {figures.missed}, false {figures.false_positives} of {figures.boxes} boxes; "
        f"{figures.people} people, {figures.ids} ids, {figures.frames} frames)"
    )
    if json_file is not None:
        write_json(json_file, {"tracking": figures.as_dict()})
