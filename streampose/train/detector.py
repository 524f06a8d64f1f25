"""Training of the person detector: one loop over deterministic batches, resumable to the very step after a kill.

A batch is a function of the recipe's seed and the step alone, so a resumed run sees what it would have seen.
Evaluation uses the running average of the weights (EMA), and the best one is kept.
"""

from __future__ import annotations

import copy
import math
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.utils.data import DataLoader

from streampose.detect.network import PeopleNetwork, bare_model, load_tensors, load_weights
from streampose.errors import DataError, UsageError, words_of
from streampose.evaluate.counting import coco_counting
from streampose.evaluate.selection import spread
from streampose.models.networks import network_of
from streampose.models.resolve import resolve
from streampose.runtime.select import cpu_multiplies_bf16
from streampose.sinks.paths import check_apart
from streampose.train.detector_augment import BytePicture, Sample
from streampose.train.detector_batches import Batches, Pictures, TellingBatches, complete_labels, start_worker
from streampose.train.detector_config import Recipe
from streampose.train.detector_data import BoxPicture, read_set, split_held_out
from streampose.train.detector_loss import DetectorLoss, floats
from streampose.train.detector_measure import find_people, measure
from streampose.train.detector_teacher import Teacher
from streampose.train.detector_weights import save_model
from streampose.train.ema import WeightAverage
from streampose.train.precision import Arithmetic, clock, fastest, pick_device, restore_buffers
from streampose.train.run_folder import RunFolder, finite, replacing
from streampose.train.schedule import warmup_cosine
from streampose.train.weights_file import write_weights

Say = Callable[[str], None]
Progress = Callable[[int, dict[str, float]], None]
KEPT: dict[str, type] = {
    "recipe": dict, "best": float, "bf16": bool, "network": dict, "average": dict, "optimiser": dict,
}  # fmt: skip
"""What a checkpoint holds, besides the step."""
FIXED = ("architecture", "batch", "seed", "canvases", "start_share", "teacher_share")
FIXED_DATA = ("guess_sources", "guess_sure", "guess_doubt", "guess_background", "crowd_doubt")
"""What a recipe, and its `data`, may not change between a run and its resumption."""


def read_pictures(recipe: Recipe, say: Say) -> Pictures:
    """Read the recipe's sets; labels that may be incomplete are completed by the start, which sees a picture once."""
    data = recipe.data
    images = data.found(data.images) if data.images else None
    sets = [read_set(data.found(name), images) for name in data.sets]
    training, held, unseen = split_held_out(
        sets, data.held_out_source, data.held_out, data.held_out_share, data.held_out_sources
    )
    strange = {*data.weights, *data.guess_sources} - {picture.source for part in sets for picture in part}
    if strange:
        say(f"no picture is of {', '.join(sorted(strange))}, which `weights` or `guess_sources` of the recipe names")
    training = [p for p in training if data.weights.get(p.source, 1.0) > 0]
    if not training:
        raise DataError(f"{', '.join(recipe.data.sets)}: nothing is left to train on once the held-out part is taken")
    say(f"{len(training)} pictures to train on, {len(held)} held out, {len(unseen)} of unseen cameras")
    if held and not any(len(picture.boxes) for picture in held):
        say("nobody is in the pictures held out: there is nothing to measure on, and the last weights are kept")
        held = []
    doubtful = [p for p in training if p.source in recipe.data.guess_sources]
    if recipe.init is not None and doubtful:
        doubtful += [p for p in training if p.source not in recipe.data.guess_sources and len(p.boxes) >= 10]
        training = complete_labels(training, _guesses(recipe, doubtful, say), recipe.data)
    return Pictures(training, held, unseen)


def _guesses(recipe: Recipe, pictures: Sequence[BoxPicture], say: Say) -> dict[str, npt.NDArray[np.floating]]:
    """What the start finds in `pictures`, by key: (N, 5) boxes xyxy and score.

    It is kept in the run's folder, by the start and the size at which it looked, and only what is new is looked at, so that
    a resumed run learns from the same labels.
    Raises DataError where that file is damaged, SinkError where it cannot be written.
    """
    asked = sha256(f"{recipe.start_digest()} {recipe.size}".encode()).hexdigest()
    kept = Path(recipe.out) / f"guesses-{asked[:12]}.npz"
    rows: dict[str, npt.NDArray[np.floating]] = {}
    if kept.is_file():
        try:
            rows = dict(np.load(kept))
        except (OSError, ValueError, EOFError, KeyError, BadZipFile, zlib.error) as error:
            raise DataError(f"{kept}: damaged ({words_of(error)}); without it the start looks once more") from error
    new = [picture for picture in pictures if picture.key not in rows]
    if new:
        say(f"the start looks at {len(new)} pictures whose labels may be incomplete")
        found = find_people(start_network(recipe), new, recipe.size, 0.05, cpu_multiplies_bf16())
        rows |= {p.key: np.column_stack([boxes, scores]) for p, (boxes, scores) in zip(new, found, strict=True)}
        with replacing(kept) as part:
            np.savez_compressed(part, allow_pickle=False, **rows)
    return rows


def start_network(recipe: Recipe) -> PeopleNetwork:
    """The network at the beginning: the recipe's architecture, with the weights of `init` where it is given, of which a
    published `.pt` is cut to people."""
    torch.manual_seed(recipe.seed)
    model = bare_model(recipe.architecture)
    start = recipe.start_file()
    if start is not None and start.suffix == ".pt":
        published: Any = network_of(*resolve(start, "detect", trust=recipe.trust))
        load_tensors(model, published.model.state_dict(), start)
    elif start is not None:
        load_weights(model, start)
    network: PeopleNetwork = PeopleNetwork(model.float()).to(memory_format=torch.channels_last)
    return network


class DetectorTraining:
    """A training in progress: network, its running average, optimiser, step, and the best figure so far."""

    def __init__(self, recipe: Recipe, pictures: Pictures, folder: RunFolder, say: Say) -> None:
        self.recipe, self.pictures, self.folder, self.say = recipe, pictures, folder, say
        self.device = str(pick_device(recipe.device))
        self.network = start_network(recipe).to(self.device)
        self.start = {name: tensor.clone() for name, tensor in self.network.state_dict().items()}
        self.start_digest = recipe.start_digest()
        self.average = WeightAverage(self.network, recipe.ema)
        self.loss = DetectorLoss(self.network.model)
        self.teacher = Teacher(copy.deepcopy(self.network), self.loss.strides) if recipe.teacher_share else None
        self.optimiser = torch.optim.AdamW(self._groups(), lr=recipe.lr)
        self.step, self.best, self.bf16 = 0, -1.0, False
        self.recent: list[dict[str, float]] = []
        """Parts of the loss of the steps since the last line of the metrics."""

    def _groups(self) -> list[dict[str, Any]]:
        """Decay for convolution kernels only; the fixed DFL kernel does not learn."""
        kernels, others = [], []  # type: ignore[var-annotated, unused-ignore]
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(".dfl." not in name)
            if parameter.requires_grad:
                (kernels if parameter.ndim > 1 else others).append(parameter)
        return [{"params": kernels, "weight_decay": self.recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]

    def choose_precision(self) -> None:
        """Take what the recipe says, or time steps in float32 and in bf16 (nothing is learnt) and take the faster."""
        if self.recipe.precision != "auto":
            self.bf16 = self.recipe.precision == "bf16"
            return
        samples = Batches(self.pictures.training, self.recipe, 0)[0]
        device = torch.device(self.device)

        def seconds(candidate: Arithmetic, count: int) -> float:
            self.bf16 = candidate.precision == "bf16"
            start = clock(device)
            self._backward(samples[:count])
            spent = clock(device) - start
            self.network.zero_grad(set_to_none=True)
            return spent

        before = [buffer.clone() for buffer in self.network.buffers()]
        candidates = [Arithmetic(name, channels_last=True) for name in ("float32", "bf16")]
        self.bf16 = fastest(candidates, seconds, len(samples), device, self.say).precision == "bf16"
        restore_buffers(self.network, before)

    def _backward(self, samples: list[Sample]) -> dict[str, float]:
        self.network.train()
        if self.recipe.freeze_batch_norm:
            for module in self.network.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        batch = self._tensor([sample.image for sample in samples])
        with torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=self.bf16):
            outputs = self.network.model(batch.contiguous(memory_format=torch.channels_last))
        outputs = floats(outputs)
        loss, parts = self.loss(outputs, samples)
        if self.teacher is not None:
            detail = self._tensor([sample.detail for sample in samples if sample.detail is not None])
            lesson = self.loss.lesson(outputs, *self.teacher(detail, self.bf16))
            parts["lesson"] = lesson.item()
            loss = loss.lerp(lesson, self.recipe.teacher_share)
        self._check("loss", loss.item())
        loss.backward()
        return parts

    def _check(self, name: str, value: float) -> None:
        """Raise DataError where that is no number any more; so would the weights be."""
        if not math.isfinite(value):
            raise DataError(f"step {self.step}: the {name} is {value}; lower lr, or look at the labels")

    def _tensor(self, images: list[BytePicture]) -> torch.Tensor:
        """Pictures (H, W, 3) BGR uint8 as (B, 3, H, W) RGB in 0..1 on the device."""
        stacked = np.stack([np.ascontiguousarray(image[..., ::-1]) for image in images])
        return torch.from_numpy(stacked).to(self.device).permute(0, 3, 1, 2).float().div(255)

    def train_step(self, samples: list[Sample]) -> dict[str, float]:
        """One step of the optimiser; returns the parts of the loss. Raises DataError, before it, where the loss or its
        gradient is no number."""
        parts = self._backward(samples)
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate()
        gradient = nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.clip_norm)
        self._check("gradient", gradient.item())
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.average.update(self.network)
        self.step += 1
        return parts

    def rate(self) -> float:
        """The learning rate of the step that is next."""
        recipe = self.recipe
        return recipe.lr * warmup_cosine(self.step, recipe.steps, recipe.warmup_steps, recipe.final_lr)

    def result(self) -> PeopleNetwork:
        """What is measured and kept: the running average, mixed with the start by the recipe's `start_share`.

        A straight line between the weights of the start and of the fine-tuned network keeps what the start knew and most
        of what was learnt (Wortsman and others, "Robust fine-tuning of zero-shot models", 2022).
        """
        network: PeopleNetwork = copy.deepcopy(self.average.network)
        with torch.no_grad():
            for name, tensor in network.state_dict().items():
                if tensor.is_floating_point():
                    tensor.lerp_(self.start[name], self.recipe.start_share)
        return network

    def evaluate(self) -> None:
        """Measure the result so far, say and record it, and keep the weights where they are the best or the recipe's `keep`
        is "last".

        The best is that with the highest AP50 of all held-out people, or, where nobody is held out, the last, and `best`
        stays -1; the unseen cameras have no say.
        """
        network = self.result()
        size = self.recipe.size
        unseen = self.pictures.unseen
        unseen = [unseen[place] for place in spread(len(unseen), self.recipe.evaluate_unseen)]
        figures: dict[str, float] = {}
        for name, pictures in (("held_out", self.pictures.held_out), ("unseen", unseen)):
            if pictures:
                scores = measure(network, pictures, size, self.bf16, self.device)
                figures[f"{name}_ap"] = scores["all"].ap
                figures |= {f"{name}_ap50_{people}": score.ap50 for people, score in scores.items()}
        told = ", ".join(f"{name} {value:.3f}" for name, value in figures.items() if finite(value) is not None)
        self.say(f"step {self.step}: {told or 'nothing is held out to measure on'}")
        self.folder.log(step=self.step, **figures)
        write_weights(network.model.state_dict(), self.folder.path / "last.safetensors")
        goal = figures.get("held_out_ap50_all")
        if goal is None or goal > self.best or self.recipe.keep == "last":
            self.best = -1.0 if goal is None else goal
            save_model(network, self.recipe, self.folder.path, self.step, figures)

    def save_state(self) -> None:
        """Write everything a resumed run needs."""
        self.folder.save({
            "recipe": self.recipe.model_dump(mode="json"), "start": self.start_digest,
            "step": self.step, "best": self.best, "measured": self._measured(), "bf16": self.bf16,
            "recent": self.recent,
            "network": self.network.model.state_dict(), "average": self.average.state(),
            "optimiser": self.optimiser.state_dict(),
        })  # fmt: skip

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on where `save_state` left off with `state`; raises DataError where that does not fit."""
        with self.folder.restoring(state["step"]):
            self.network.model.load_state_dict(state["network"])
            self.average.restore(state["average"])
            self.optimiser.load_state_dict(state["optimiser"])
        for group, own in zip(self.optimiser.param_groups, self._groups(), strict=True):
            group["weight_decay"] = own["weight_decay"]  # the recipe's, which may have changed
        self.step, self.bf16, self.recent = state["step"], state["bf16"], state.get("recent", [])
        # A checkpoint of before `measured` was kept may have, where nothing was held out, a step in the place of a figure.
        compared = state.get("measured", self._measured()) == self._measured() and 0 <= state["best"] <= 1
        self.best = state["best"] if compared else -1.0

    def _measured(self) -> str:
        """What `best` is measured on: where it is something else, figures cannot be compared."""
        told = sha256(str(self.recipe.size).encode())
        for picture in self.pictures.held_out:
            told.update(picture.key.encode() + picture.boxes.tobytes())
        return told.hexdigest()

    def run(self, progress: Progress) -> None:
        """Train to the recipe's last step; `progress` hears of every step."""
        recipe = self.recipe
        batches: Iterator[list[Sample] | DataError] = iter(
            DataLoader(
                TellingBatches(Batches(self.pictures.training, recipe, self.step)), batch_size=None, shuffle=False,
                num_workers=recipe.workers, worker_init_fn=start_worker, prefetch_factor=3 if recipe.workers else None,
            )
        )  # fmt: skip
        if not self.folder.last.exists():
            self.save_state()  # before NAME.safetensors, with which alone nobody can go on
        if self.step == 0:
            self.folder.start_fresh()  # of a run that was killed in its first measurement
        if self.step == 0 or (self.pictures.held_out and self.best < 0):
            self.evaluate()
            self.save_state()
        start = saved = time.perf_counter()
        since = self.step
        for samples in batches:
            if isinstance(samples, DataError):
                raise samples
            rate = self.rate()
            self.recent.append(self.train_step(samples))
            progress(self.step, self.recent[-1])
            last = self.step == recipe.steps
            told, measured = self.step % 20 == 0 or last, self.step % recipe.evaluate_every == 0 or last
            if told:
                speed = (self.step - since) * recipe.batch / (time.perf_counter() - start)
                mean = {name: float(np.mean([parts[name] for parts in self.recent])) for name in self.recent[0]}
                self.folder.log(step=self.step, rate=rate, pictures_per_s=speed, **mean)
                self.recent = []
            if measured:
                self.evaluate()
            late = time.perf_counter() - saved > recipe.checkpoint_s
            if measured or late or self.step % recipe.checkpoint_every == 0:
                self.save_state()
                saved = time.perf_counter()
            if told:
                start, since = time.perf_counter(), self.step


def _going_on(recipe: Recipe, folder: RunFolder) -> tuple[Recipe, dict[str, Any]]:
    """The recipe with the start of the run in `folder` where it names none, and what that run has saved.

    Raises DataError where there is nothing to go on with, UsageError where it was another recipe or start.
    """
    state = folder.load(**KEPT)
    made: Mapping[str, Any] = state["recipe"]
    if recipe.init is None:
        recipe = recipe.model_copy(update={"init": made.get("init")})
    mine = recipe.model_dump(mode="json")
    folder.same_recipe(made, mine, FIXED)
    folder.same_recipe(made.get("data", {}), mine["data"], FIXED_DATA)
    if "start" in state and state["start"] != recipe.start_digest():
        told = made.get("init") or "none"
        raise UsageError(
            f"{folder.last}: was made with another start ({told}); leave --init out, or name another `out`"
        )
    return recipe, state


def train_detector(recipe: Recipe, *, resume: bool, say: Say, progress: Progress) -> DetectorTraining:
    """All of `streampose train detector`: data, precision, steps, curves. Raises a StreamposeError child, in one line."""
    coco_counting()
    if recipe.teacher_share and recipe.init is None and not resume:
        raise UsageError("teacher_share: the teacher is the start; name one by --init, or by `init` of the recipe")
    with RunFolder(recipe.out) as folder:
        return _train(recipe, folder, resume=resume, say=say, progress=progress)


def _keep_start(recipe: Recipe) -> None:
    """Raise SinkError where the run would write over the start or its manifest."""
    start = recipe.start_file()
    if start is not None:
        for name in (f"{recipe.name}.safetensors", f"{recipe.name}.yaml", "last.safetensors"):
            check_apart(Path(recipe.out) / name, [start, start.with_suffix(".yaml")])


def _train(recipe: Recipe, folder: RunFolder, *, resume: bool, say: Say, progress: Progress) -> DetectorTraining:
    recipe, state = _going_on(recipe, folder) if resume else (recipe, None)
    _keep_start(recipe)
    if not resume:
        folder.refuse_another_run(f"{recipe.name}.safetensors")
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    cv2.setNumThreads(0)
    training = DetectorTraining(recipe, read_pictures(recipe, say), folder, say)
    if state is not None:
        training.load_state(state)
        say(f"going on at step {training.step} of {recipe.steps}")
    else:
        training.choose_precision()
    training.run(progress)
    sets = [f"{name}_ap50_{people}" for name in ("held_out", "unseen") for people in ("all", "64", "40-100")]
    folder.plot(("box", "cls", "dfl", *(["lesson"] if training.teacher else [])), sets, recipe.name)
    kept = (
        f"{recipe.keep} AP50 {training.best:.3f}"
        if training.pictures.held_out
        else "nothing held out, the last weights"
    )
    say(f"done: {kept} in {folder.path / recipe.name}.safetensors")
    return training
