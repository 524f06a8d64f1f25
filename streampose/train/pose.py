"""The training of a pose network: from a recipe to checkpoints, metrics and curves.

Nothing in a step waits for Python or for a disk: the crops lie in device memory, augmentation, teacher, student and
average run there. Every draw is made from (seed, step), so a run that was killed and resumed walks the very same way.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from streampose.errors import DataError
from streampose.evaluate.counting import coco_counting
from streampose.evaluate.keypoints import KeypointFigures, PreparedCrops, measure
from streampose.evaluate.selection import spread
from streampose.pose.checkpoint import load_weights
from streampose.pose.network import build_pose_network
from streampose.pose.skeleton import load_skeleton
from streampose.train.augment import Augmenter
from streampose.train.bar import bar_of
from streampose.train.ema import WeightAverage
from streampose.train.frozen_norm import freeze_norms
from streampose.train.pose_config import PoseRecipe
from streampose.train.pose_data import (
    PersonStore,
    check_sources,
    cut_measured,
    digest_of,
    load_people,
    open_sets,
    split_people,
)
from streampose.train.pose_loss import pose_losses
from streampose.train.pose_start import going_on, start_of
from streampose.train.pose_teacher import PoseTeacher
from streampose.train.precision import Arithmetic, arithmetics, choose_arithmetic, pick_device
from streampose.train.run_folder import RunFolder
from streampose.train.schedule import warmup_cosine

Say = Callable[[str], None]
KEPT: dict[str, type] = {
    "network_name": str, "student": dict, "average": dict, "optimizer": dict, "best": float, "precision": str,
    "channels_last": bool,
}  # fmt: skip
"""What a checkpoint holds, besides the step."""
FIXED = ("network", "skeleton", "input", "output", "batch", "seed")
"""What a recipe may not change between a run and its resumption."""


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """How a training ended: figures by view ("clean", "96px", ...), and where the best weights lie."""

    figures: dict[str, KeypointFigures]
    best: Path
    steps: int


class PoseTraining:
    """One training run; `run` goes on until all samples are seen. Raises UsageError where nothing can be measured."""

    def __init__(self, recipe: PoseRecipe, say: Say, *, resume: bool = False) -> None:
        coco_counting()
        if recipe.threads:
            torch.set_num_threads(recipe.threads)
        self.say = say
        self.device = pick_device(recipe.device)
        self.folder = RunFolder(recipe.out)
        if not resume:
            self.folder.refuse_another_run()
        resumed = self.folder.load(**KEPT) if resume else None
        if resumed is not None:
            recipe = going_on(recipe, resumed)
        self.recipe = recipe
        self.skeleton = load_skeleton(recipe.skeleton)
        torch.manual_seed(recipe.seed)
        self.new_head = False
        self.student = self._build(recipe.init if resumed is None else None)
        begun = {**start_of(recipe), "new_head": self.new_head} if resumed is None else resumed
        self.begun = {name: begun[name] for name in ("start", "licence", "new_head") if name in begun}
        self.mean = torch.tensor(recipe.input.mean, device=self.device).view(1, 3, 1, 1)
        self.std = torch.tensor(recipe.input.std, device=self.device).view(1, 3, 1, 1)
        self.teacher = self._build_teacher(recipe.teacher) if recipe.teacher else None
        if recipe.freeze_norms:
            self.say(f"batch norms frozen, {freeze_norms(self.student)} fused with their convolutions")
        self.average = WeightAverage(self.student, recipe.ema)
        self.optimizer = torch.optim.AdamW(self._groups(), lr=recipe.lr, foreach=True)
        self.steps = -(-recipe.samples // recipe.batch)
        self.step, self.best = 0, -1.0
        if resumed is not None:
            self._restore(resumed)
        else:
            self.folder.start_fresh()
        self.store, self.views = self._load_data()
        self.measured = digest_of(self.views)
        self.compared = resumed is None or resumed.get("measured", self.measured) == self.measured
        if not self.compared:
            self.best = -1.0
        self.augmenter = Augmenter(
            recipe.augment,
            size=(recipe.input.width, recipe.input.height),
            flip_order=torch.from_numpy(self.skeleton.flip_order).to(self.device),
            upper_body=self.skeleton.upper_body,
            zoom=recipe.teacher_zoom,
        )
        self.arithmetic = self._choose_arithmetic(resumed)
        if self.teacher is not None and recipe.teacher_ahead:
            with bar_of("asking the teacher") as bar:
                task = bar.add_task("asking the teacher", total=len(self.store), note="")
                told = self.folder.path
                self.teacher.study(self.store, self.arithmetic, told, lambda done: bar.advance(task, done))

    def _build(self, weights: Path | None) -> nn.Module:
        network = build_pose_network({"network": self.recipe.network, "joints": len(self.skeleton.keypoints)})
        if weights is not None and (
            note := load_weights(network, self.recipe.found_weights(weights), remake_head=True)
        ):
            self.say(note)
            self.new_head = True
        return network.to(self.device)

    def _build_teacher(self, weights: Path) -> PoseTeacher:
        """The teacher, frozen; one of other joints cannot teach. Raises ModelError."""
        network = self._build(None)
        load_weights(network, self.recipe.found_weights(weights))
        freeze_norms(network)
        return PoseTeacher(network.eval().requires_grad_(False), self.recipe, self.skeleton, self.mean, self.std)

    def _groups(self) -> list[dict[str, Any]]:
        """Weight decay for the convolutions' weights only."""
        parameters = list(self.student.parameters())
        return [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": self.recipe.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]

    def _restore(self, state: dict[str, Any]) -> None:
        made = {"network": state["network_name"], **state.get("recipe", {})}
        self.folder.same_recipe(made, self.recipe.model_dump(mode="json"), FIXED)
        with self.folder.restoring(state["step"]):
            self.student.load_state_dict(state["student"])
            self.average.restore(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
        for group, own in zip(self.optimizer.param_groups, self._groups(), strict=True):
            group["weight_decay"] = own["weight_decay"]  # the recipe's, which may have changed
        self.step, self.best = state["step"], state["best"]
        self.say(f"resumed at step {self.step} of {self.steps}")

    def _save(self) -> None:
        state = {
            "network_name": self.recipe.network,
            "recipe": self.recipe.model_dump(mode="json"),
            **self.begun,
            "student": self.student.state_dict(),
            "average": self.average.state(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "best": self.best,
            "measured": self.measured,
            "precision": self.arithmetic.precision,
            "channels_last": self.arithmetic.channels_last,
        }
        self.folder.save(state)

    def _load_data(self) -> tuple[PersonStore, dict[str, PreparedCrops]]:
        recipe, holdout = self.recipe, self.recipe.holdout
        sets = open_sets(recipe, self.skeleton)
        check_sources(sets, recipe.teacher_aligned, "teacher_aligned")
        trained, measured = split_people(sets, holdout)
        if recipe.subset:
            trained = _first(trained, recipe.subset)
        if recipe.measure_trained:
            measured = trained
        measured = _spread(measured, holdout.people)
        count = sum(map(len, trained))
        pictures = len({id(person.image) for part in measured for person in part})
        self.say(f"{count} people to train on, {sum(map(len, measured))} of {pictures} pictures to measure on")
        with bar_of("reading crops") as bar:
            task = bar.add_task("reading crops", total=count, note="")
            store = load_people(
                sets, trained, recipe.input, self.device, lambda done: bar.advance(task, done), recipe.teacher_zoom
            )
        heights = {"clean": None} | {f"{height}px": height for height in holdout.heights} if any(measured) else {}
        views = {name: cut_measured(sets, measured, recipe.input, height) for name, height in heights.items()}
        for data in sets:
            data.close()
        return store, views

    def _choose_arithmetic(self, resumed: dict[str, Any] | None) -> Arithmetic:
        recipe = self.recipe
        if resumed is not None:  # another arithmetic would round otherwise and leave the curve
            choice = Arithmetic(str(resumed["precision"]), bool(resumed["channels_last"]))
            choice.arrange_network(self.student)
        else:
            shape = (recipe.batch, 3, recipe.input.height, recipe.input.width)
            candidates = arithmetics(recipe.precision, recipe.layout)
            choice = choose_arithmetic(self.student, shape, self.device, candidates, self.say)
        choice.arrange_network(self.average.network)
        if self.teacher is not None:
            choice.arrange_network(self.teacher.network)
        return choice

    def run(self) -> TrainingResult:
        """Train to the end; the figures are those of the last measurement, `best` the weights of the best mean AP, the
        start among them where its head is its own, or the last where nobody is measured or found.

        Raises DataError where the loss is no number any more, SinkError where the run's files cannot be written.
        """
        with self.folder:
            return self._run()

    def _run(self) -> TrainingResult:
        recipe = self.recipe
        figures: dict[str, KeypointFigures] = {}
        if self.step == 0:
            self._save()  # before best.pt, with which alone nobody can go on
            if recipe.init is not None:
                self._measure()
                self._save()
        elif self.views and not self.compared:  # `best` is of other people, so the weights so far are the first to beat
            figures = self._measure()
            self._save()
        saved = started = time.monotonic()
        since = self.step
        every = max(recipe.measure_samples // recipe.batch, 1)
        with bar_of("training") as bar:
            task = bar.add_task("training", total=self.steps, completed=self.step, note="")
            while self.step < self.steps:
                label, distil, gradient = self._train_step()
                self.step += 1
                last = self.step == self.steps
                told, measured = self.step % 10 == 0 or last, self.step % every == 0 or last
                kept = measured or time.monotonic() - saved > recipe.checkpoint_s
                if told or kept:
                    self._check({"loss": label + distil, "gradient": gradient})
                if told:
                    values = {"loss": round(label.item() + distil.item(), 5), "label": round(label.item(), 5)}
                    rate = recipe.batch * (self.step - since) / (time.monotonic() - started)
                    since, started = self.step, time.monotonic()
                    lr = self.optimizer.param_groups[0]["lr"]
                    self.folder.log(
                        step=self.step, **values, distil=round(distil.item(), 5), lr=lr, samples_s=round(rate, 2)
                    )
                    bar.update(task, completed=self.step, note=f"loss {values['loss']:.3f}, {rate:.1f} crops/s")
                if measured:
                    figures = self._measure()
                if kept:
                    self._save()
                    saved = time.monotonic()
                    started = saved if measured else started
        if not figures and self.views:
            figures = self._measure()
        return TrainingResult(figures, self.folder.path / "best.pt", self.steps)

    def _check(self, values: dict[str, Tensor]) -> None:
        """Raise DataError where one of `values` is no number any more; so are the weights then."""
        for name, value in values.items():
            if not math.isfinite(number := value.item()):
                raise DataError(f"step {self.step}: the {name} is {number}; lower lr, or look at the labels")

    def _train_step(self) -> tuple[Tensor, Tensor, Tensor]:
        """One step of the optimiser; the two parts of the loss, and the norm of their gradient before it is clipped."""
        recipe = self.recipe
        factor = warmup_cosine(self.step, self.steps, max(recipe.warmup_samples // recipe.batch, 1))
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.lr * factor
        generator = torch.Generator(self.device).manual_seed(recipe.seed * 1_000_003 + self.step)
        index = sample_index(len(self.store), recipe.batch, self.step, recipe.seed)
        batch = self.store.batch(index)
        views = self.augmenter(batch, generator)
        human = self.store.human[index.to(self.device)].gather(1, views.order)
        heat = None if self.teacher is None else self.teacher.teach(batch, views, index, self.arithmetic)
        self.student.train()
        with self.arithmetic.autocast(self.device):
            heatmaps = self.student(self.arithmetic.arrange((views.seen - self.mean) / self.std))
        label, distil = pose_losses(
            heatmaps.float(), views.points, views.weights, human, recipe.loss, recipe.output, heat
        )
        self.optimizer.zero_grad(set_to_none=True)
        (label + distil).backward()
        gradient = nn.utils.clip_grad_norm_(self.student.parameters(), 10.0)
        self.optimizer.step()
        self.average.update(self.student)
        return label.detach(), distil.detach(), gradient

    def _measure(self) -> dict[str, KeypointFigures]:
        network = self.network_of(self.average.network)
        figures = {
            view: measure(crops, network, self.recipe.output, self.skeleton) for view, crops in self.views.items()
        }
        mean = float(np.mean([figure.ap for figure in figures.values()])) if figures else 0.0
        own = self.step == 0 and not self.begun.get("new_head")
        if (self.step > 0 or own) and (mean > self.best or not figures or self.recipe.keep == "last"):
            if mean > 0 or own:  # an AP of 0 tells no two trained networks apart: the later is kept
                self.best = max(mean, self.best)
            made = {"recipe": self.recipe.model_dump(mode="json"), **self.begun}
            self.folder.save({"network": self.average.network.state_dict(), "step": self.step, **made}, "best.pt")
        named = {f"AP {view}": round(figure.ap, 4) for view, figure in figures.items()}
        known = any(line["step"] == self.step and "mean_ap" in line for line in self.folder.read_metrics())
        if figures and not known:
            self.folder.log(step=self.step, **named, mean_ap=round(mean, 4))
        self.folder.plot(("label", "distil"), tuple(named), f"{self.recipe.network}, {self.folder.path}")
        told = ", ".join(f"{name} {value:.3f}" for name, value in named.items())
        self.say(f"step {self.step}: {told or 'nobody is kept to measure on, the last weights count as the best'}")
        return figures

    def network_of(self, network: nn.Module) -> Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]:
        """`network` as arrays in, arrays out, on this run's device and in its arithmetic."""

        def call(crops: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
            pictures = torch.from_numpy(np.ascontiguousarray(crops[..., ::-1])).to(self.device)
            x = (pictures.permute(0, 3, 1, 2).float() - self.mean) / self.std
            with torch.no_grad(), self.arithmetic.autocast(self.device):
                return np.asarray(network.eval()(self.arithmetic.arrange(x)).float().cpu().numpy())

        return call


def sample_index(count: int, batch: int, step: int, seed: int) -> Tensor:
    """The people of one step (B,): every epoch is a shuffle of all, drawn from (seed, epoch)."""
    places = np.arange(step * batch, (step + 1) * batch)
    epochs = places // count
    index = np.empty(batch, np.int64)
    for epoch in np.unique(epochs):
        order = np.random.Generator(np.random.PCG64([seed, int(epoch)])).permutation(count)
        here = epochs == epoch
        index[here] = order[places[here] % count]
    return torch.from_numpy(index)


def _first(parts: list[list[Any]], count: int) -> list[list[Any]]:
    taken = []
    for part in parts:
        taken.append(part[:count])
        count -= len(taken[-1])
    return taken


def _spread(parts: list[list[Any]], count: int) -> list[list[Any]]:
    """At most `count` people, evenly over all."""
    total = sum(map(len, parts))
    if total <= count:
        return parts
    chosen = set(spread(total, count))
    taken, at = [], 0
    for part in parts:
        taken.append([person for place, person in enumerate(part, at) if place in chosen])
        at += len(part)
    return taken
