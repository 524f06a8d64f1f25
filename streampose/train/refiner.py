"""The training of a refiner: a pose network is asked about labelled people once, then a perceptron learns from its answers.

What it maximises is OKS (Lin et al., 2014) as it would be measured. The network itself does not change.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from streampose.detect.detector import Detector
from streampose.errors import DataError, ModelError, SinkError
from streampose.evaluate.counting import coco_counting
from streampose.evaluate.dataset import KeypointSet, LabelledPerson
from streampose.evaluate.keypoints import KeypointFigures, PreparedCrops, prepare_crops, score_keypoints
from streampose.evaluate.set_files import set_name
from streampose.messages import Array
from streampose.models import manifest as manifests
from streampose.models.load import load_detector, load_pose
from streampose.models.manifest import sha256_of
from streampose.models.resolve import FOREIGN, is_name, local_models, resolve
from streampose.pose.crop import crop_affines, cut_crops, invert_affines, map_points
from streampose.pose.estimator import PoseNetwork, look
from streampose.pose.refiner import CELLS, OUTPUTS, Refiner, features, load_refiner, mirror_points
from streampose.pose.skeleton import Skeleton
from streampose.sinks.paths import check_writable
from streampose.track.association import areas, iou, overlaps
from streampose.train.bar import bar_of
from streampose.train.pose_data import check_sources, cut_measured, open_sets, split_people
from streampose.train.refiner_config import RefinerRecipe
from streampose.train.run_folder import writing
from streampose.train.schedule import warmup_cosine
from streampose.train.weights_file import write_manifest, write_weights

AT_ONCE = 64
SAME_PERSON = 0.5
NOBODY = 0.1
WIDE = 4.0
"""Beside OKS itself a kernel of this much wider variance pulls at points that are too far off for OKS to tell."""
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class RefinerResult:
    """Figures by view ("clean", "96px", ...) without any refiner, with the one that the model had (None where it had none),
    and with the new one; and the manifest that has this now, None where it was not the best on the kept people and so is
    not kept."""

    alone: dict[str, KeypointFigures]
    before: dict[str, KeypointFigures] | None
    after: dict[str, KeypointFigures]
    manifest: Path | None


@dataclass(frozen=True, slots=True)
class Answers:
    """What the network said of N people in crop pixels, `said` (N, K, 3), and what people did: `labels` (N, K, 2),
    `marked` (N, K) which has one, `known` (N, K) which could have; `variance` (N, K) px² of OKS around a label."""

    said: Tensor
    labels: Tensor
    marked: Tensor
    known: Tensor
    variance: Tensor

    def rows(self, index: Tensor) -> Answers:
        """Those of `index`."""
        return Answers(*(getattr(self, name)[index] for name in self.__slots__))


def train_refiner(recipe: RefinerRecipe, say: Say) -> RefinerResult:
    """Train a refiner for the recipe's model and write it beside it, with its manifest, where kept people gain by it, also
    over the one that it had.

    Raises ModelError for a model that is not of a pose network with a manifest, DataError for sets without people to learn
    from or to measure on, SinkError where it cannot be written.
    """
    coco_counting()
    place, weights = _place(recipe.found_model)
    part = place.with_name(f".{place.stem}.refiner.safetensors")  # until it has shown that it is better
    check_writable(part)
    pose = load_pose(place, device=recipe.device, runtime=recipe.runtime, precision=recipe.precision, refined=False)
    network, skeleton = pose.networks[0], pose.skeleton
    sets = open_sets(recipe, skeleton)
    check_sources(sets, recipe.sources, "sources")
    trained, kept = split_people(sets, recipe.holdout)
    if not any(kept):
        raise DataError("nobody is kept to measure on; `holdout` of the recipe has to keep some pictures")
    trained = [[one for one in part if _teaches(one, recipe.sources)] for part in trained]
    count = sum(map(len, trained))
    if not count:
        named = ", ".join(recipe.sources) or "the sets"
        raise DataError(f"{named}: has nobody labelled by people to learn from")
    say(f"{count} people in {len(recipe.heights)} views to train on, {sum(map(len, kept))} kept to measure on")
    answers = _ask_all(recipe, network, skeleton, sets, trained)
    heights = {"clean": None} | {f"{height}px": height for height in recipe.holdout.heights}
    views = {name: cut_measured(sets, kept, network.manifest.input, height) for name, height in heights.items()}
    for data in sets:
        data.close()
    perceptron = fit(answers, recipe, network.manifest.input.width, network.manifest.input.height, skeleton)
    write_weights(_named(perceptron), part)
    try:
        trial = {"refiner": part.name, "sha256_refiner": sha256_of(part)}
        refiner = load_refiner(network.manifest.model_copy(update=trial), weights)
        assert refiner is not None
        told = {name: _ask(network, crops.crops, skeleton) for name, crops in views.items()}
        pose.close()

        def figures(refine: Refiner | None) -> dict[str, KeypointFigures]:
            return {name: _measure(views[name], refine(s) if refine else s, skeleton) for name, s in told.items()}

        present = _present(place, weights, say)
        alone, before, after = figures(None), figures(present) if present else None, figures(refiner)
        if _sum(after) <= max(_sum(alone), _sum(before or alone)):
            return RefinerResult(alone, before, after, None)
        _put(part, place, _summary(recipe, count))
    finally:
        part.unlink(missing_ok=True)
    return RefinerResult(alone, before, after, place)


def _sum(figures: dict[str, KeypointFigures]) -> float:
    return sum(each.ap for each in figures.values())


def _present(place: Path, weights: Path, say: Say) -> Refiner | None:
    """The refiner that the manifest `place` names; one that is lost or damaged is said and counts as none."""
    try:
        return load_refiner(manifests.load(place)[0], weights)
    except ModelError as error:
        say(f"{error}; a new one takes its place")
        return None


def _put(part: Path, place: Path, summary: dict[str, Any]) -> None:
    """Move the weights in `part` beside the manifest `place` and name them in it; the refiner of before goes, unless another
    manifest beside it names it, too.

    The name holds the hash: whatever stops this half-way, the manifest finds what it names. Raises SinkError.
    """
    manifest, _ = manifests.load(place, verify=False, refined=False)
    digest = sha256_of(part)
    target = place.with_name(f"{place.stem}.refiner-{digest[:8]}.safetensors")
    with writing(target):
        part.replace(target)
    training = {**manifest.training, "refiner": summary}
    changes = {"refiner": target.name, "sha256_refiner": digest, "training": training}
    try:
        write_manifest(manifest.model_copy(update=changes), place)
    except SinkError:
        if manifest.refiner != target.name:
            target.unlink()
        raise
    old = manifest.refiner
    if old is not None and old != target.name and not _is_named_beside(place, old):
        place.with_name(old).unlink(missing_ok=True)


def _is_named_beside(place: Path, name: str) -> bool:
    """Whether a manifest in the folder of `place` has the name of the refiner `name` in it, which holds its hash; one that
    cannot be read may have."""
    for path in (*place.parent.glob("*.yaml"), *place.parent.glob("*.yml")):
        try:
            if name.encode() in path.read_bytes():
                return True
        except OSError:
            return True
    return False


def _place(ref: str | Path) -> tuple[Path, Path]:
    """Manifest and weights of the pose model `ref`; raises ModelError where it has not both."""
    _, weights = resolve(ref, "pose", refined=False)
    path = local_models()[str(ref)] if is_name(ref) else Path(ref)
    place = path if path.suffix in (".yaml", ".yml") else path.with_suffix(".yaml")
    if weights.suffix in FOREIGN or not place.is_file():
        raise ModelError(f"{path}: a refiner is trained for weights (.safetensors) that have a manifest beside them")
    return place, weights


def _teaches(person: LabelledPerson, sources: Sequence[str]) -> bool:
    return bool((person.human & (person.keypoints[:, 2] > 0)).any()) and (not sources or person.image.source in sources)


def _summary(recipe: RefinerRecipe, people: int) -> dict[str, Any]:
    """What a manifest says of the training."""
    places = {"root", "images", "data", "model", "holdout", "device", "runtime", "precision"}
    sets = [set_name(recipe.found(path)) for path in recipe.data]
    return {"people": people, "sets": sets, **recipe.model_dump(mode="json", exclude=places)}


def _ask_all(
    recipe: RefinerRecipe,
    network: PoseNetwork,
    skeleton: Skeleton,
    sets: Sequence[KeypointSet],
    people: Sequence[Sequence[LabelledPerson]],
) -> Answers:
    """The network's answers on all `people`, a list for each set, in every view, and on what the detector finds."""
    found: list[Answers] = []
    rng = np.random.default_rng(recipe.seed)
    with bar_of("asking the network") as bar:
        task = bar.add_task("", total=len(recipe.heights) * sum(map(len, people)), note="")
        for height in recipe.heights:
            for data, part in zip(sets, people, strict=True):
                for start in range(0, len(part), AT_ONCE):
                    chunk = part[start : start + AT_ONCE]
                    boxes = _near_boxes(np.stack([person.box for person in chunk]), recipe, rng)
                    crops = prepare_crops(
                        data, chunk, network.manifest.input, person_height=height or None, boxes=boxes
                    )
                    said = _ask(network, crops.crops, skeleton)
                    found.append(answers_of(said, invert_affines(crops.to_image), chunk, skeleton))
                    bar.advance(task, len(chunk))
    if recipe.detector is not None:
        detector = load_detector(
            recipe.found_detector, threshold=recipe.threshold, device=recipe.device, runtime=recipe.runtime
        )
        for data, part in zip(sets, people, strict=True):
            found += recipe.found_counts * _ask_found(detector, network, skeleton, data, part)
    return Answers(*(torch.cat([getattr(each, name) for each in found]) for name in Answers.__slots__))


def _ask_found(
    detector: Detector,
    network: PoseNetwork,
    skeleton: Skeleton,
    data: KeypointSet,
    people: Sequence[LabelledPerson],
) -> list[Answers]:
    """The network's answers in the boxes that `detector` draws on the pictures of `people`: theirs, and those of nobody."""
    spec, found = network.manifest.input, []
    everybody: dict[int, list[LabelledPerson]] = {}
    for person in data.people:
        everybody.setdefault(person.image.id, []).append(person)
    taught: set[LabelledPerson | None] = {*people, None}
    images = list({person.image.id: person.image for person in people}.values())
    with bar_of("asking in the detector's boxes") as bar:
        for image in bar.track(images, task_id=bar.add_task("", total=len(images), note="")):
            picture = data.read(image)
            boxes, _ = detector([picture])[0]
            owners = {row: one for row, one in owners_of(boxes, everybody[image.id]).items() if one in taught}
            if owners:
                to_crop = crop_affines(boxes[list(owners)], spec.width, spec.height, spec.box_scale)
                said = _ask(network, cut_crops(picture, to_crop, spec.width, spec.height), skeleton)
                found.append(answers_of(said, to_crop, list(owners.values()), skeleton))
    detector.close()
    return found


def owners_of(boxes: Array, people: Sequence[LabelledPerson]) -> dict[int, LabelledPerson | None]:
    """Whose the rows of `boxes` (N, 4) are: the person's whose box it overlaps with an IoU of 0.5 or more, nobody's (None)
    where less than a tenth of it lies in anybody's box. Rows of which neither is sure are left out."""
    theirs = np.stack([person.box for person in people])
    overlap = iou(boxes, theirs)
    inside = overlaps(boxes, theirs) / np.maximum(areas(boxes), 1e-6)[:, None]
    owners: dict[int, LabelledPerson | None] = {
        row: people[best]
        for row, best in enumerate(overlap.argmax(axis=1).tolist())
        if overlap[row, best] >= SAME_PERSON
    }
    return dict(sorted((owners | dict.fromkeys(np.flatnonzero(inside.max(axis=1) < NOBODY).tolist())).items()))


def _near_boxes(boxes: Array, recipe: RefinerRecipe, rng: np.random.Generator) -> Array:
    """`boxes` (N, 4) xyxy as a detector draws them: a little off, a little too large or small."""
    sides = boxes[:, 2:] - boxes[:, :2]
    middle = 0.5 * (boxes[:, 2:] + boxes[:, :2]) + sides * rng.normal(0, recipe.shift, sides.shape)
    sides = sides * np.exp(rng.normal(0, recipe.scale, sides.shape))
    return np.concatenate((middle - sides / 2, middle + sides / 2), axis=1).astype(np.float32)


def _ask(network: PoseNetwork, crops: npt.NDArray[np.uint8], skeleton: Skeleton) -> Array:
    """What the network says of `crops`, (N, K, 3) in crop pixels."""
    parts = [look(network, crops[at : at + AT_ONCE], skeleton) for at in range(0, len(crops), AT_ONCE)]
    return np.concatenate(parts)


def answers_of(
    said: Array, to_crop: npt.NDArray[np.float64], people: Sequence[LabelledPerson | None], skeleton: Skeleton
) -> Answers:
    """What `said` (N, K, 3) in crop pixels is to be held against, `to_crop` (N, 2, 3) mapping pictures to crops; where
    there is nobody no joint is labelled."""
    shape = said.shape[:2]
    labels, human, area = np.zeros((*shape, 3)), np.ones(shape, bool), np.ones(shape[0])
    for at, person in enumerate(people):
        if person is not None:
            labels[at], human[at] = person.keypoints, person.human
            area[at] = person.area * abs(np.linalg.det(to_crop[at, :, :2]))
    variance = area[:, None] * (2 * skeleton.sigmas) ** 2
    values = (said, map_points(to_crop, labels[..., :2]), human & (labels[..., 2] > 0), human, variance)
    return Answers(*(torch.from_numpy(np.asarray(each, np.float32)) for each in values))


def fit(answers: Answers, recipe: RefinerRecipe, width: int, height: int, skeleton: Skeleton) -> nn.Sequential:
    """The perceptron that `answers` teach, for crops of `width` x `height` pixels; the same for the same seed."""
    torch.manual_seed(recipe.seed)
    joints = len(skeleton.keypoints)
    sides = (3 * joints, recipe.hidden, recipe.hidden)
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sides):
        layers += [nn.Linear(inputs, outputs), nn.ReLU(), nn.Dropout(recipe.dropout)]
    last = nn.Linear(recipe.hidden, OUTPUTS * joints)
    nn.init.zeros_(last.weight)
    perceptron = nn.Sequential(*layers, last).train()
    optimizer = torch.optim.AdamW(perceptron.parameters(), recipe.lr, weight_decay=recipe.weight_decay)
    both = (answers, _mirrored(answers, width, skeleton.flip_order))
    seen = [torch.from_numpy(features(each.said.numpy(), width, height)) for each in both]
    batch = min(recipe.batch, len(answers.said))
    steps, step = recipe.passes * (len(answers.said) // batch), 0
    with bar_of("training") as bar:
        task = bar.add_task("", total=steps, note="")
        for _ in range(recipe.passes):
            for index in torch.randperm(len(answers.said)).split(batch):
                if len(index) < batch:
                    continue
                for group in optimizer.param_groups:
                    group["lr"] = recipe.lr * warmup_cosine(step, steps, steps // 10 + 1)
                side = int(torch.randint(2, ()))
                told = perceptron(seen[side][index]).view(len(index), joints, OUTPUTS)
                loss = refiner_loss(told, both[side].rows(index), width / CELLS)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                step += 1
                bar.update(task, completed=step, note=f"loss {loss.item():.3f}")
    return perceptron.eval()


def _mirrored(answers: Answers, width: int, order: npt.NDArray[np.int64]) -> Answers:
    said = torch.from_numpy(mirror_points(answers.said.numpy(), width, order))
    rest = (getattr(answers, name)[:, torch.from_numpy(order)] for name in ("marked", "known", "variance"))
    labels = answers.labels[:, torch.from_numpy(order)]
    labels = torch.stack(((width - 1) - labels[..., 0], labels[..., 1]), dim=-1)
    return Answers(said, labels, *rest)


def refiner_loss(told: Tensor, answers: Answers, cell: float) -> Tensor:
    """How far `told` (B, K, 4) is from the best that could be said, a mean over people.

    The sum of what is missing in OKS, of the cross-entropies of each joint's nearness and of its being labelled, and of
    that of a person's score, which is the mean nearness weighted by the chance of a label.
    """
    apart = ((answers.said[..., :2] + cell * told[..., :2] - answers.labels) ** 2).sum(-1) / answers.variance / 2
    near = torch.exp(-apart)
    count = answers.marked.sum(1).clamp(min=1)
    missing = (1 - 0.7 * near - 0.3 * torch.exp(-apart / WIDE)) * answers.marked
    near = near.detach()
    entropy = functional.binary_cross_entropy_with_logits
    nearness = entropy(told[..., 2], near, reduction="none") * answers.marked
    labelled = (entropy(told[..., 3], answers.marked, reduction="none") * answers.known).sum(1)
    sure, chance = told[..., 2].sigmoid(), told[..., 3].sigmoid()
    person = ((sure * chance).sum(1) / chance.sum(1)).clamp(1e-4, 1 - 1e-4)
    whole = functional.binary_cross_entropy(person, (near * answers.marked).sum(1) / count, reduction="none")
    parts = (missing + 0.5 * nearness).sum(1) / count + 0.5 * labelled / answers.known.sum(1).clamp(min=1)
    return (parts + 0.5 * whole).mean()


def _named(perceptron: nn.Sequential) -> dict[str, Tensor]:
    layers = [each for each in perceptron if isinstance(each, nn.Linear)]
    return {f"{at}.{name}": value for at, layer in enumerate(layers) for name, value in layer.state_dict().items()}


def _measure(crops: PreparedCrops, said: Array, skeleton: Skeleton) -> KeypointFigures:
    points = said.copy()
    points[..., :2] = map_points(crops.to_image, points[..., :2])
    return score_keypoints(crops.people, [person.image.id for person in crops.people], points, skeleton)
