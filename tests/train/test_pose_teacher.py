"""The pose teacher: mirrored, turned and enlarged looks agree, and what it said ahead moves with the crop."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from streampose.errors import ConfigError, SinkError
from streampose.models.manifest import OutputSpec
from streampose.pose.decode import decode_heatmaps
from streampose.pose.network import build_pose_network
from streampose.train.pose import PoseTraining
from streampose.train.pose_loss import gaussian_heatmaps
from streampose.train.pose_teacher import PoseTeacher, label_moves, move_heatmaps, turn_affine
from tests.train.small_recipe import quiet, recipe_for
from tests.train.stick_people import stick_set

OUTPUT = OutputSpec.model_validate({"kind": "heatmap", "decode": "dark", "blur": 5})


class DotFinder(torch.nn.Module):
    """Heatmaps of height 1 around the brightest pixel, a joint for each corner of a triangle whose sides the flip swaps."""

    def __init__(self, offset: float = 0.0) -> None:
        super().__init__()
        self.offset = offset
        self.asked = 0

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        self.asked += len(pictures)
        count, _, height, width = pictures.shape
        best = pictures[:, 0].flatten(1).argmax(1)
        x = (best % width - self.offset)[:, None, None] / 4 - torch.arange(width // 4)
        y = (best // width - self.offset)[:, None, None] / 4 - torch.arange(height // 4)[:, None]
        return torch.exp(-(x**2 + y**2) / 8)[:, None].expand(count, 6, -1, -1)


def training_of(folder: Path, people: int, finder: DotFinder | None = None, **changes: object) -> PoseTraining:
    """A training whose teacher is `finder`, asked about crops that show one bright spot each."""
    stick_set(folder / "set", people)
    torch.save(build_pose_network({"network": "litehrnet_tiny", "joints": 6}).state_dict(), folder / "teacher.pth")
    training = PoseTraining(recipe_for(folder, teacher="teacher.pth", root=folder, **changes), quiet)
    if finder is not None:
        assert training.teacher is not None
        training.teacher.network, training.teacher.lessons = finder, None
        rows, columns = training.store.crops.shape[1:3]
        rng = np.random.default_rng(0)
        y, x = np.mgrid[:rows, :columns]
        for crop in training.store.crops:
            spot = rng.uniform(0.3, 0.7, 2) * (columns, rows)
            light = 250 * np.exp(-((x - spot[0]) ** 2 + (y - spot[1]) ** 2) / 18)
            crop[:] = torch.from_numpy(light.astype(np.uint8))[..., None]
    return training


def places(heatmaps: torch.Tensor) -> np.ndarray:
    return decode_heatmaps(heatmaps.numpy(), OUTPUT)[..., :2]


def test_a_teacher_of_twice_the_input_teaches_the_small_network(tmp_path: Path) -> None:
    """A step of the real training: stored crops, the teacher's view and its heatmaps are all of twice the size."""
    training = training_of(tmp_path, 4, teacher_flip=True, teacher_zoom=2, samples=8, batch=4)
    assert training.store.crops.shape == (4, 160, 160, 3)
    assert training.teacher is not None
    training.teacher.network = DotFinder()
    clean = torch.zeros(1, 3, 128, 128)
    clean[0, :, 60, 42] = 255.0
    index = torch.zeros(1, dtype=torch.int64)
    batch = training.store.batch(index)
    heat = training.teacher.look(batch, torch.eye(3)[None, :2], training.arithmetic, clean)
    assert heat.shape == (1, 6, 32, 32)
    assert places(heat)[0, 0] == pytest.approx((42, 60), abs=0.2)
    assert training.run().steps == 2
    assert all(line["distil"] > 0 for line in training.folder.read_metrics() if "distil" in line)


@pytest.mark.parametrize(("offset", "tolerance"), [(0.0, 1e-5), (1.5, 0.06)])
def test_a_large_teacher_is_heard_at_the_small_ones_cells(offset: float, tolerance: float) -> None:
    output = OutputSpec(kind="heatmap", offset=offset)
    points = torch.tensor([[[40.0, 61.5], [33.3, 90.0], [80.2, 20.1]]])
    small = gaussian_heatmaps(points, (32, 24), output, sigma=1.1)
    large = gaussian_heatmaps(2 * points, (64, 48), output, sigma=2.2)
    half = torch.tensor([[[0.5, 0, 0], [0, 0.5, 0]]])
    heard = move_heatmaps(large, half, output, (32, 24))
    assert heard.shape == small.shape
    assert (heard - small).abs().max() < tolerance


@pytest.mark.parametrize(("offset", "shift"), [(0.0, None), (1.5, None), (0.0, 1)])
def test_a_teacher_that_looks_twice_says_the_same_place_twice(tmp_path: Path, offset: float, shift: int | None) -> None:
    """Also where the recipe's output has the flip test of published networks, which is one of whole cells."""
    output = {"kind": "heatmap", "decode": "dark", "blur": 5, "offset": offset, "flip_shift": shift}
    training = training_of(tmp_path, 3, DotFinder(offset), teacher_flip=True, output=output)
    clean = torch.zeros(2, 3, 64, 64)
    clean[0, :, 30, 21] = clean[1, :, 11, 50] = 255.0
    assert training.teacher is not None
    wanted = training.teacher.network(clean)
    batch = training.store.batch(torch.arange(2))
    heat = training.teacher.look(batch, torch.eye(3)[None, :2].expand(2, 2, 3), training.arithmetic, clean)
    assert (heat - wanted).abs().max() < 0.01
    plainly_mirrored = training.teacher.network(clean.flip(3)).flip(3)
    assert bool((plainly_mirrored - wanted).abs().max() > 0.2) is (offset == 0)


@settings(max_examples=60, deadline=None)
@given(
    x=st.floats(20, 44),
    y=st.floats(20, 44),
    degrees=st.floats(-180, 180),
    scale=st.floats(0.9, 1.15),
    offset=st.sampled_from([0.0, 1.5]),
)
def test_a_moved_heatmap_has_its_peak_where_the_point_moved_to(
    x: float, y: float, degrees: float, scale: float, offset: float
) -> None:
    output = OutputSpec.model_validate({"kind": "heatmap", "decode": "dark", "blur": 5, "offset": offset})
    point = torch.tensor([[[x, y]]])
    heat = gaussian_heatmaps(point, (16, 16), output, 1.5)
    affine = turn_affine(degrees, 64, 64)
    affine = torch.cat((affine[:, :, :2] * scale, affine[:, :, 2:] * scale + 32 * (1 - scale)), 2)
    goal = (point @ affine[:, :, :2].transpose(1, 2) + affine[:, None, :, 2])[0, 0].numpy()
    found = decode_heatmaps(move_heatmaps(heat, affine, output).numpy(), output)[0, 0]
    assert found[:2] == pytest.approx(goal, abs=0.25)  # a sixteenth of a cell
    assert 0.85 < found[2] <= 1.0


@pytest.mark.parametrize("zoom", [1, 2])
def test_what_was_said_ahead_lies_where_the_teacher_would_have_said_it(tmp_path: Path, zoom: int) -> None:
    """Turned and mirrored crops of the real augmentation; the teacher is asked in the step, then ahead."""
    finder = DotFinder()
    augment = {"rotate": 1.0, "rotate_deg": 10, "scale": [0.9, 1.1], "half_body": 0, "camera": 0.5}
    training = training_of(
        tmp_path,
        6,
        finder,
        teacher_flip=True,
        teacher_turns=[-10, 15],
        teacher_zoom=zoom,
        augment=augment,
        samples=12,
        batch=6,
    )
    teacher, index = training.teacher, torch.tensor([5, 0, 3, 1, 2, 4])
    assert teacher is not None
    batch = training.store.batch(index)
    views = training.augmenter(batch, torch.Generator().manual_seed(4))
    assert (views.order[:, 1] != 1).any()
    assert (views.order[:, 1] == 1).any()
    asked_now = teacher.teach(batch, views, index, training.arithmetic)
    assert finder.asked == 6 * 3 * 2
    told: list[int] = []
    teacher.study(training.store, training.arithmetic, tmp_path, told.append)
    assert (sum(told), finder.asked) == (6, 2 * 6 * 3 * 2)
    ahead = teacher.teach(batch, views, index, training.arithmetic)
    assert ahead.shape == asked_now.shape == (6, 6, 16, 16)
    assert finder.asked == 2 * 6 * 3 * 2
    assert np.abs(places(ahead) - places(asked_now)).max() < 1.0  # the finder itself says whole pixels
    assert training.run().steps == 2


def test_an_aligned_teacher_puts_joints_where_most_people_put_them(tmp_path: Path) -> None:
    """Labels lie off what it says by an amount of their own for each joint, but for two of five; one joint has too few."""
    training = training_of(tmp_path, 30, DotFinder(), samples=30, batch=15)
    teacher, store = training.teacher, training.store
    assert teacher is not None
    teacher.study(store, training.arithmetic, tmp_path, lambda _: None)
    assert teacher.lessons is not None
    said = places(teacher.lessons.float())
    custom = np.array([[0, -2], [-5, 4], [5, 4], [0, 2], [-1, 0], [9, 9]])
    margin = (np.array(store.crops.shape[2:0:-1]) - 64) / 2
    store.points[:] = torch.from_numpy(said + custom + margin)
    store.points[[1, 4, 7, 11, 13, 17, 18, 20, 23]] += 25.0
    store.points[25:] += 9.0
    store = replace(store, sources=("streets",) * 25 + ("sports",) * 5)
    store.human[:] = True
    store.weights[:] = 1.0
    store.weights[:6, 5] = 0.0
    custom[5] = (1, 0)  # of it 19 labels say nothing, but its mirror image does
    teacher.recipe = teacher.recipe.model_copy(update={"teacher_aligned": ("streets",)})
    teacher.study(store, training.arithmetic, tmp_path, lambda _: None)
    assert np.abs(places(teacher.lessons.float()) - said - custom).max() < 0.4  # a tenth of a cell
    assert len(list(tmp_path.glob("lessons-*.npy"))) == 1  # nobody was asked again
    endless = replace(store, crops=store.crops.new_zeros(1).expand(len(store), 2**22, 2**22, 3))  # not to be copied
    heard = np.ones((len(store), 6, 3), np.float32)
    assert label_moves(heard, endless, teacher.recipe, training.skeleton, ("streets",)).shape == (6, 2)
    heard[:, :3, 2] = 0.25
    store.weights[19:, 3] = 0.0
    moves = label_moves(heard, store, teacher.recipe, training.skeleton, ("streets",))
    assert (moves[:4] == 0).all()  # it is never sure of three, and 19 labels do not move the fourth
    assert (moves[4:] != 0).any()
    heard[6:, 4:, 2] = 0.25
    heard[0, 4:, 2] = 0.3
    for sources, fault in (
        (
            ("streets",),
            r"^streets: nothing can be aligned: of no joint are there 20 labels by people at which the network ",
        ),
        (("moon",), "^moon: no joint in pictures of these sources is labelled by people$"),
    ):
        with pytest.raises(ConfigError, match=fault):
            label_moves(heard, store, teacher.recipe, training.skeleton, sources)
    teacher.recipe = teacher.recipe.model_copy(update={"teacher_aligned": ("moon",)})
    with pytest.raises(ConfigError, match="moon: no joint in pictures of these sources is labelled by people"):
        teacher.study(store, training.arithmetic, tmp_path, lambda _: None)


def test_a_source_that_no_picture_has_is_named_beside_those_that_are_right(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^teacher_aligned: no picture is of val2O17; the sets have set$"):
        training_of(tmp_path, 4, teacher_ahead=True, teacher_aligned=["set", "val2O17"])


def test_what_is_aligned_is_measured_at_its_time(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="teacher_aligned: needs teacher_ahead: true"):
        recipe_for(tmp_path, teacher_aligned=["streets"])
    with pytest.raises(ValueError, match=r"output.shift: is measured by --export … --align"):
        recipe_for(tmp_path, output={"kind": "heatmap", "shift": [[0, 1]] * 6})


def test_a_resumed_run_asks_nobody_twice_and_another_teacher_anew(tmp_path: Path) -> None:
    ahead = {"teacher_ahead": True, "teacher_flip": True, "samples": 8, "batch": 4}
    training = training_of(tmp_path, 4, **ahead)
    training.run()
    (kept,) = (tmp_path / "run").glob("lessons-*.npy")
    before = kept.stat().st_mtime_ns
    PoseTraining(training.recipe, quiet, resume=True)
    assert [kept] == list((tmp_path / "run").glob("lessons-*"))
    assert kept.stat().st_mtime_ns == before
    other = training.recipe.model_copy(update={"teacher_turns": (5.0,)})
    PoseTraining(other, quiet, resume=True)
    assert len(list((tmp_path / "run").glob("lessons-*.npy"))) == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_lessons_that_cannot_be_kept_are_one_line(tmp_path: Path) -> None:
    training = training_of(tmp_path, 2, samples=4, batch=4)
    assert isinstance(training.teacher, PoseTeacher)
    training.teacher.study(training.store, training.arithmetic, tmp_path, lambda _: None)
    (kept,) = tmp_path.glob("lessons-*.npy")
    kept.unlink()
    part = kept.with_suffix(".part.npy")
    part.symlink_to("/dev/full")
    with pytest.raises(SinkError, match=r"lessons-\w+\.npy: cannot be written \(No space left on device\)"):
        training.teacher.study(training.store, training.arithmetic, tmp_path, lambda _: None)
    assert not kept.exists()
    assert not part.is_symlink()
