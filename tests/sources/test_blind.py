"""The blind-camera watch: each condition is found in time, told once, taken back, and never seen in good footage."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from streampose.messages import Image
from streampose.sources.blind import HOLD_S, Watch, look
from streampose.sources.synthetic import PatternOptions, SyntheticSource

SAMPLES = Path(__file__).parents[2] / "samples"
FPS = 5
SIZE = (360, 640, 3)
NOISE = [np.random.default_rng(seed).normal(0.0, 1.0, SIZE).astype(np.float32) for seed in range(7)]
STREET = SyntheticSource(PatternOptions(width=640, height=360, people=3))
STREETS = [STREET.draw(number * 15 // FPS) for number in range(24)]
Scene = Callable[[int], Image]


def noisy(image: Image, sigma: float = 2.0) -> Image:
    """With the noise of a sensor, another every time."""
    noise = NOISE[next(TURN) % len(NOISE)]
    shown: Image = cv2.addWeighted(image.astype(np.float32), 1.0, noise, sigma, 0.0).clip(0, 255).astype(np.uint8)
    return shown


TURN = itertools.count()


def street(number: int) -> Image:
    return noisy(STREETS[number % len(STREETS)])


def run(watch: Watch, scene: Scene, seconds: float, from_s: float = 0.0) -> list[tuple[float, str]]:
    """Show `scene` for `seconds`; what was said, and when after its start."""
    said: list[tuple[float, str]] = []
    for number in range(int(seconds * FPS)):
        said += [(number / FPS, state) for state, _ in watch.see(scene(number), from_s + number / FPS)]
    return said


STILL = street(7)
CARD = np.full(SIZE, (200, 40, 20), np.uint8)
cv2.putText(CARD, "NO SIGNAL", (180, 200), cv2.FONT_HERSHEY_SIMPLEX, 1.5, (255, 255, 255), 3)
BLACK_CARD = np.full(SIZE, 8, np.uint8)
cv2.putText(BLACK_CARD, "VIDEO LOSS", (180, 200), cv2.FONT_HERSHEY_SIMPLEX, 1.5, (255, 255, 255), 3)
BARS = np.repeat(
    np.array(
        [[191, 191, 191], [0, 191, 191], [191, 191, 0], [0, 191, 0], [191, 0, 191], [0, 0, 191], [191, 0, 0]], np.uint8
    ),
    92,
    axis=0,
)[None, :640].repeat(360, axis=0)

BLIND: dict[str, tuple[str, Scene]] = {
    "frozen": ("frozen", lambda n: STILL),
    "frozen and coded anew": ("frozen", lambda n: noisy(STILL, 0.5)),
    "frozen with a running clock": ("frozen", lambda n: clock(STILL, n)),
    "lens cap": ("dark", lambda n: noisy(np.full(SIZE, 6, np.uint8))),
    "blinded by a lamp": ("bright", lambda n: np.maximum(street(n), 240).astype(np.uint8)),
    "hand before the lens": ("covered", lambda n: noisy(np.full(SIZE, (60, 80, 120), np.uint8), 1.0)),
    "out of focus": ("defocused", lambda n: noisy(cv2.GaussianBlur(street(n), (0, 0), 5), 1.0)),
    "out of focus behind a running clock": (
        "defocused",
        lambda n: clock(noisy(cv2.GaussianBlur(street(n), (0, 0), 5), 1.0), n),
    ),
    "far out of focus": ("defocused", lambda n: noisy(cv2.GaussianBlur(street(n), (0, 0), 12), 1.0)),
    "knocked aside": ("moved", lambda n: np.roll(street(n), (90, 150), axis=(0, 1))),
    "blue card": ("no_signal", lambda n: CARD),
    "black card": ("no_signal", lambda n: BLACK_CARD),
    "colour bars": ("no_signal", lambda n: BARS),
}


def clock(image: Image, number: int) -> Image:
    shown = image.copy()
    cv2.putText(shown, f"{number // FPS:06d}", (10, 350), cv2.FONT_HERSHEY_PLAIN, 1.0, (255, 255, 255), 1)
    return shown


@pytest.mark.parametrize("name", BLIND)
def test_each_blindness_is_found_told_once_and_taken_back(name: str) -> None:
    state, scene = BLIND[name]
    watch = Watch()
    assert run(watch, street, 10) == []
    said = run(watch, scene, HOLD_S[state] + 5, from_s=10.0)  # type: ignore[index]
    final = [word for _, word in said if word != "seeing"]
    assert final[-1:] == [state], said
    assert said[-1][0] <= HOLD_S[state] + 2, "too late"  # type: ignore[index]
    assert final.count(state) == 1
    said = run(watch, street, 4, from_s=100.0)
    assert [word for _, word in said] == ["seeing"]
    assert watch.state is None


@pytest.mark.parametrize("clip", ["cctv.mp4", "park.mp4", "lab_single_vp9.mp4"])
def test_good_footage_is_never_called_blind(clip: str) -> None:
    watch = Watch()
    with av.open(str(SAMPLES / clip)) as container:
        for frame in container.decode(video=0):
            said = watch.see(frame.to_ndarray(format="bgr24"), float(frame.time or 0.0))
            assert said == [], (clip, frame.time, said)
            if float(frame.time or 0.0) > 12:
                break


def test_a_short_disturbance_is_not_told() -> None:
    watch = Watch()
    run(watch, street, 8)
    dark = np.zeros(SIZE, np.uint8)
    assert run(watch, lambda n: dark, 1.5, from_s=8.0) == []
    assert run(watch, street, 3, from_s=9.5) == []


def test_a_crowd_and_changing_light_are_no_reason() -> None:
    crowd = SyntheticSource(PatternOptions(width=640, height=360, people=25))
    watch = Watch()
    run(watch, street, 8)
    assert run(watch, lambda n: noisy(crowd.draw(3 * n)), 10, from_s=8.0) == []
    dimmed = Watch()
    run(dimmed, street, 8)
    assert (
        run(dimmed, lambda n: noisy((STREETS[n % 24] * max(0.35, 1 - n / 100)).astype(np.uint8)), 15, from_s=8.0) == []
    )


def test_a_view_that_stays_is_the_usual_one_after_a_while() -> None:
    watch = Watch()
    run(watch, street, 10)
    said = run(watch, lambda n: np.roll(street(n), (90, 150), axis=(0, 1)), 75, from_s=10.0)
    assert [word for _, word in said] == ["moved", "seeing"]
    assert 55 < said[1][0] < 70


def test_a_plainer_view_is_another_view_and_no_loss_of_focus() -> None:
    hills = np.random.default_rng(3).normal(128.0, 50.0, (9, 16)).astype(np.float32)
    hills = cv2.resize(hills, SIZE[1::-1], interpolation=cv2.INTER_CUBIC).clip(0, 255).astype(np.uint8)
    watch = Watch()
    run(watch, street, 10)
    said = run(watch, lambda n: noisy(cv2.cvtColor(hills, cv2.COLOR_GRAY2BGR)), 75, from_s=10.0)
    assert [word for _, word in said] == ["moved", "seeing"]
    assert 55 < said[1][0] < 70


def test_noise_that_goes_is_no_loss_of_focus_and_one_after_it_is_found() -> None:
    watch = Watch()
    assert run(watch, lambda n: noisy(STREETS[n % len(STREETS)], 14.0), 30) == []
    assert run(watch, street, 60, from_s=30.0) == []
    said = run(watch, lambda n: noisy(cv2.GaussianBlur(street(n), (0, 0), 5), 1.0), 10, from_s=90.0)
    assert [word for _, word in said] == ["defocused"]


@pytest.mark.parametrize("first", ["out of focus", "knocked aside", "black card"])
def test_nothing_is_said_to_be_seen_while_one_blindness_follows_another(first: str) -> None:
    watch = Watch()
    run(watch, street, 10)
    assert run(watch, BLIND[first][1], 10, from_s=10.0)[-1][1] == BLIND[first][0]
    assert [word for _, word in run(watch, BLIND["lens cap"][1], 10, from_s=20.0)] == ["dark"]
    assert [word for _, word in run(watch, street, 4, from_s=30.0)] == ["seeing"]


@pytest.mark.parametrize("blur_px", [3, 12])
def test_good_footage_out_of_focus_is_found(blur_px: int) -> None:
    watch = Watch()
    said: list[str] = []
    with av.open(str(SAMPLES / "cctv.mp4")) as container:
        for frame in itertools.islice(container.decode(video=0), 0, 120, 2):
            time_s, image = float(frame.time or 0.0), frame.to_ndarray(format="bgr24")
            shown = image if time_s < 6 else cv2.GaussianBlur(image, (0, 0), blur_px)
            said += [word for word, _ in watch.see(shown, time_s)]
    assert said == ["defocused"]


def test_a_camera_turned_while_it_was_away_is_found_out() -> None:
    watch = Watch()
    run(watch, street, 10)
    watch.reset()
    said = run(watch, lambda n: np.roll(street(n), (90, 150), axis=(0, 1)), 8, from_s=40.0)
    assert [word for _, word in said] == ["moved"]


@pytest.mark.parametrize("scene", [lambda n: STILL, lambda n: noisy(STILL, 0.5)])
def test_a_frozen_picture_that_a_new_connection_sends_again_stays_frozen(scene: Scene) -> None:
    watch = Watch()
    assert [word for _, word in run(watch, scene, 30)] == ["frozen"]
    for begins_s in (31.0, 40.0, 44.0):
        watch.reset()
        assert run(watch, scene, 3, from_s=begins_s) == []
    watch.reset()
    assert [word for _, word in run(watch, street, 10, from_s=50.0)] == ["seeing"]


def test_a_picture_that_was_kept_over_an_outage_is_not_frozen() -> None:
    watch = Watch()
    run(watch, street, 10)
    watch.reset()
    assert run(watch, lambda n: street(49 if n < 10 else n), 10, from_s=60.0) == []


def test_another_size_is_no_other_view() -> None:
    small = SyntheticSource(PatternOptions(width=320, height=180, people=3))
    watch = Watch()
    run(watch, street, 10)
    assert run(watch, lambda n: small.draw(3 * n), 8, from_s=10.0) == []


def test_pictures_too_small_to_judge_are_let_be() -> None:
    assert look(np.zeros((12, 100, 3), np.uint8)) is None
    assert Watch().see(np.zeros((12, 100, 3), np.uint8), 0.0) == []
