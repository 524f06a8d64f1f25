"""Any number of pictures is cut into compiled sizes, in order, none lost and none added."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streampose.runtime.batches import plan_batches, run_in_batches

SIZES = st.lists(st.sampled_from([1, 2, 3, 4, 8, 16]), min_size=1, unique=True)


@given(st.integers(1, 100), SIZES, st.floats(0, 1))
def test_a_plan_holds_all_and_only_its_last_piece_is_padded(count: int, sizes: list[int], waste: float) -> None:
    plan = plan_batches(count, sizes, waste)
    assert set(plan) <= set(sizes)
    assert sum(plan) >= count
    assert sum(plan[:-1]) < count


@given(st.integers(1, 100), SIZES)
def test_without_waste_nothing_is_padded_that_a_smaller_size_holds(count: int, sizes: list[int]) -> None:
    padding = sum(plan_batches(count, sizes, 0.0)) - count
    assert padding < min(sizes)


def test_known_plans() -> None:
    assert plan_batches(11, (1, 2, 4, 8)) == [8, 2, 1]
    assert plan_batches(7, (1, 2, 4, 8)) == [8]
    assert plan_batches(3, (1, 2, 4, 8)) == [2, 1]
    assert plan_batches(9, (1, 2, 4, 8, 16), waste=1.0) == [16]
    assert plan_batches(3, (4,)) == [4]


@given(st.integers(1, 40), SIZES)
def test_outputs_are_those_of_the_pictures_in_order(count: int, sizes: list[int]) -> None:
    batch = np.arange(count * 2, dtype=np.uint8).reshape(count, 2)
    seen: list[int] = []

    def run(piece: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        seen.append(len(piece))
        return piece.astype(np.float32) * 2, piece.sum(1, dtype=np.float32)

    doubled, sums = run_in_batches(batch, sizes, run)
    assert set(seen) <= set(sizes)
    np.testing.assert_array_equal(doubled, batch * np.float32(2))
    np.testing.assert_array_equal(sums, batch.sum(1, dtype=np.float32))
