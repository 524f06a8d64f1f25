"""What a teacher network says of crops: heatmaps, the mean of several looks, taken step by step or once ahead.

Looked at ahead, every person costs the teacher one time and its answer is moved as the crop is moved in each step, so
that it may look more often than a step could pay for. Letters: B crops, K joints, z the teacher's zoom: what it sees and
says is z times as wide and high as what the student does (pixels and cells "of the teacher").
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from streampose.errors import ConfigError
from streampose.models.manifest import OutputSpec
from streampose.pose.decode import decode_heatmaps
from streampose.pose.flip import mirror_columns
from streampose.pose.skeleton import Skeleton
from streampose.train.augment import PersonBatch, Views, warp
from streampose.train.pose_config import PoseRecipe
from streampose.train.pose_data import PersonStore
from streampose.train.precision import Arithmetic
from streampose.train.run_folder import replacing

AHEAD_AT_ONCE = 32
ALIGNED_AT_ONCE = 256
SURE = 0.25
"""A teacher's peak above it counts for the alignment."""
FEWEST = 20
"""Of fewer labels of a joint and side the median follows single faults: it is not moved by them."""


@dataclass(slots=True)
class PoseTeacher:
    """`network` sees clean crops, mirrored and turned too where `recipe` says so; `mean` and `std` (1, 3, 1, 1)."""

    network: nn.Module
    recipe: PoseRecipe
    skeleton: Skeleton
    mean: Tensor
    std: Tensor
    lessons: Tensor | None = None
    """(N, K, zh, zw) half floats, what `study` learnt of each stored crop as `look` sees it unmoved."""
    _mirror: Tensor = field(init=False)
    _order: Tensor = field(init=False)

    def __post_init__(self) -> None:
        exact = self.recipe.output.model_copy(update={"flip_shift": None})  # what is taught lies where it is seen
        columns = mirror_columns(teacher_size(self.recipe)[0], exact)
        self._mirror = torch.from_numpy(columns).to(self.mean.device)
        self._order = torch.from_numpy(self.skeleton.flip_order).to(self.mean.device)

    def teach(self, batch: PersonBatch, views: Views, index: Tensor, arithmetic: Arithmetic) -> Tensor:
        """Heatmaps (B, K, h, w) of the people `index` (B,) of the store, as they lie in `views`."""
        recipe = self.recipe
        zoom = recipe.teacher_zoom
        if self.lessons is None:
            heat = self.look(batch, views.affine * zoom, arithmetic, views.detail)
            if zoom == 1:
                return heat
            move = heat.new_tensor([[[1 / zoom, 0.0, 0.0], [0.0, 1 / zoom, 0.0]]])
        else:
            heat = self.lessons[index.to(self.lessons.device)].float()
            heat = heat.gather(1, views.order[..., None, None].expand_as(heat))
            move = _after(views.affine, _inverse(still_affine(batch, recipe)))
        return move_heatmaps(heat, move, recipe.output, (heat.shape[2] // zoom, heat.shape[3] // zoom))

    def look(
        self, batch: PersonBatch, affine: Tensor, arithmetic: Arithmetic, straight: Tensor | None = None
    ) -> Tensor:
        """Heatmaps (B, K, zh, zw) of stored crops moved by `affine` (B, 2, 3), stored pixels to the teacher's.

        `straight` (B, 3, zH, zW) spares the cutting of the view that is not turned, where it is at hand.
        """
        width, height = teacher_size(self.recipe)
        heat = self._ask(warp(batch.crops, affine, width, height) if straight is None else straight, arithmetic)
        for degrees in self.recipe.teacher_turns:
            turn = turn_affine(degrees, width, height).to(affine)
            turned = self._ask(warp(batch.crops, _after(turn, affine), width, height), arithmetic)
            heat = heat + move_heatmaps(turned, _inverse(turn), self.recipe.output)
        return heat / (1 + len(self.recipe.teacher_turns))

    def _ask(self, pictures: Tensor, arithmetic: Arithmetic) -> Tensor:
        """Heatmaps (B, K, zh, zw) of pictures (B, 3, zH, zW) in 0..255."""
        recipe = self.recipe
        clean = arithmetic.arrange((pictures - self.mean) / self.std)
        with torch.no_grad(), arithmetic.autocast(clean.device):
            heat: Tensor = self.network(clean).float()
            if recipe.teacher_flip:
                mirrored = self.network(arithmetic.arrange(clean[..., self._mirror])).float()
                heat = 0.5 * (heat + mirrored[:, self._order].flip(3))
        return heat.clamp(min=0.0)

    def study(self, store: PersonStore, arithmetic: Arithmetic, folder: Path, progress: Callable[[int], None]) -> None:
        """Look at everybody in `store`; the answers are kept in `folder`, so that a resumed run looks no second time.

        Raises SinkError where they cannot be written.
        """
        path = folder / f"lessons-{self._name(store)}.npy"
        if not path.exists():
            with replacing(path) as part:
                self._write(store, arithmetic, part, progress)
        self.lessons = torch.from_numpy(np.load(path)).to(store.crops.device)
        if self.recipe.teacher_aligned:
            self._align(store)

    def _align(self, store: PersonStore) -> None:
        """Move what was said of every joint to where the people who labelled the recipe's sources put it."""
        assert self.lessons is not None
        said = [
            decode_heatmaps(self.lessons[rows].float().cpu().numpy(), self.recipe.output)
            for rows in torch.arange(len(store)).split(ALIGNED_AT_ONCE)
        ]
        moves = label_moves(np.concatenate(said), store, self.recipe, self.skeleton, self.recipe.teacher_aligned)
        shift = torch.from_numpy(moves).to(self.lessons.device)
        affine = torch.cat((torch.eye(2).to(shift).expand(len(shift), 2, 2), shift[..., None]), 2)
        for rows in torch.arange(len(store), device=shift.device).split(ALIGNED_AT_ONCE):
            lessons = self.lessons[rows].float()
            moved = move_heatmaps(lessons.flatten(0, 1)[:, None], affine.repeat(len(rows), 1, 1), self.recipe.output)
            self.lessons[rows] = moved.view_as(lessons).half()

    def _write(self, store: PersonStore, arithmetic: Arithmetic, path: Path, progress: Callable[[int], None]) -> None:
        with path.open("wb") as file:  # not mapped into memory: a full disk would then kill the process
            for start in range(0, len(store), AHEAD_AT_ONCE):
                batch = store.batch(torch.arange(start, min(start + AHEAD_AT_ONCE, len(store))))
                heat = self.look(batch, still_affine(batch, self.recipe), arithmetic).half().cpu().numpy()
                if not start:
                    head = {"descr": heat.dtype.str, "fortran_order": False, "shape": (len(store), *heat.shape[1:])}
                    np.lib.format.write_array_header_1_0(file, head)
                file.write(heat.tobytes())
                progress(len(heat))
            file.flush()
            os.fsync(file.fileno())

    def _name(self, store: PersonStore) -> str:
        """A name for these answers: who was asked, how, about whom."""
        asked = {"flip": self.recipe.teacher_flip, "turns": self.recipe.teacher_turns}
        told = hashlib.sha256(json.dumps(asked).encode())
        for tensor in (*self.network.state_dict().values(), store.crops):
            told.update(tensor.contiguous().cpu().numpy().data)
        return told.hexdigest()[:12]


def label_moves(
    said: npt.NDArray[np.float32], store: PersonStore, recipe: PoseRecipe, skeleton: Skeleton, sources: Sequence[str]
) -> npt.NDArray[np.float32]:
    """How far, in the median, people put each joint from where it was `said` (N, K, 3) to be in unmoved crops: (K, 2).

    Sets draw their joints by customs of their own (hips above all), and so does a network that learnt from several. Labels
    by people in pictures of `sources` count, at joints that whoever said it was sure of, `FEWEST` or more of a joint; left
    and right are taken as each other's mirror images. A joint of which that tells nothing stays, 0. The teacher's pixels.
    Raises ConfigError where there is no label by people, or no joint has so many.
    """
    still = still_affine(store, recipe)
    labelled = (store.points @ still[:, :, :2].transpose(1, 2) + still[:, None, :, 2]).cpu().numpy()
    chosen = np.array([source in sources for source in store.sources])
    labels = (store.human & (store.weights > 0)).cpu().numpy() & chosen[:, None]
    if not labels.any():
        raise ConfigError(f"{', '.join(sources)}: no joint in pictures of these sources is labelled by people")
    known = labels & (said[..., 2] > SURE)
    if known.sum(0).max() < FEWEST:
        sure, count = max(zip(known.sum(0), labels.sum(0), strict=True))
        raise ConfigError(
            f"{', '.join(sources)}: nothing can be aligned: of no joint are there {FEWEST} labels by people at which the "
            f"network is sure of it (a peak above {SURE}); it is of {sure} of {count}"
        )
    away = labelled - said[..., :2]
    moves = np.full((said.shape[1], 2), np.nan, np.float32)
    for joint in np.flatnonzero(known.sum(0) >= FEWEST):
        moves[joint] = np.median(away[known[:, joint], joint], 0)
    mirrored = moves[skeleton.flip_order] * np.array([-1, 1], np.float32)
    either = np.where(np.isnan(moves), mirrored, np.where(np.isnan(mirrored), moves, (moves + mirrored) / 2))
    return np.asarray(np.nan_to_num(either), np.float32)


def teacher_size(recipe: PoseRecipe) -> tuple[int, int]:
    """Width and height of what the teacher sees, pixels."""
    return recipe.input.width * recipe.teacher_zoom, recipe.input.height * recipe.teacher_zoom


def still_affine(batch: PersonBatch | PersonStore, recipe: PoseRecipe) -> Tensor:
    """The map (B, 2, 3) from stored pixels to the teacher's that moves nothing: the middle goes to the middle."""
    width, height = teacher_size(recipe)
    rows, columns = batch.crops.shape[1:3]
    one = batch.points.new_tensor([[1.0, 0.0, (width - columns) / 2], [0.0, 1.0, (height - rows) / 2]])
    return one.expand(len(batch.crops), 2, 3)


def turn_affine(degrees: float, width: int, height: int) -> Tensor:
    """The map (1, 2, 3) of input pixels that turns them about the input's middle."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x, y = width / 2, height / 2
    return torch.tensor([[[cos, -sin, x - cos * x + sin * y], [sin, cos, y - sin * x - cos * y]]])


def move_heatmaps(heatmaps: Tensor, affine: Tensor, output: OutputSpec, size: tuple[int, int] | None = None) -> Tensor:
    """Heatmaps (B, K, h, w) moved as pixels are by `affine` (B or 1, 2, 3), nothing where nothing was; `size` (rows,
    columns) of the result, else that of `heatmaps`.

    Between cells they are interpolated by cubics, so that a peak stays where it is, to a hundredth of a cell, and nearly
    as high.
    """
    count, _, rows, columns = heatmaps.shape
    height, width = size or (rows, columns)
    stride = heatmaps.new_tensor(output.strides)
    back = _inverse(affine)
    y, x = torch.meshgrid(
        torch.arange(height, device=heatmaps.device, dtype=heatmaps.dtype),
        torch.arange(width, device=heatmaps.device, dtype=heatmaps.dtype),
        indexing="ij",
    )
    pixels = torch.stack((x, y), -1).view(1, -1, 2) * stride + output.offset
    cells = (pixels @ back[:, :, :2].transpose(1, 2) + back[:, None, :, 2] - output.offset) / stride
    grid = 2.0 * cells / cells.new_tensor([columns - 1, rows - 1]) - 1.0
    grid = grid.view(-1, height, width, 2).expand(count, -1, -1, -1)
    return functional.grid_sample(heatmaps, grid, mode="bicubic", padding_mode="zeros", align_corners=True).clamp(min=0)


def _inverse(affine: Tensor) -> Tensor:
    linear = torch.linalg.inv(affine[:, :, :2])
    return torch.cat((linear, -linear @ affine[:, :, 2:]), 2)


def _after(last: Tensor, first: Tensor) -> Tensor:
    """The affine map (B, 2, 3) that does `first`, then `last`."""
    return torch.cat((last[:, :, :2] @ first[:, :, :2], last[:, :, :2] @ first[:, :, 2:] + last[:, :, 2:]), 2)
