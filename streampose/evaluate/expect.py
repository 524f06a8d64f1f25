"""A published figure, held against the measured one."""

from __future__ import annotations

from streampose.errors import StreamposeError


def check_expected(name: str, measured: float, expected: float, tolerance: float) -> str:
    """One line that says the measured AP (a fraction) is the expected one (points, 0..100) within `tolerance` points.

    Raises StreamposeError (exit code 1) with one line where it is not.
    """
    points = 100.0 * measured
    line = f"{name} {points:.2f}, expected {expected:g} ± {tolerance:g}"
    if not abs(points - expected) <= tolerance:
        raise StreamposeError(f"{line}: off by {points - expected:+.2f}")
    return f"{line}: holds"
