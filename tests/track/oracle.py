"""What the filters are held against, worked out another way than they do it."""

from __future__ import annotations

import numpy as np


def motion(dt: float, q: float, decay: float) -> tuple[np.ndarray, np.ndarray]:
    """F and Q of a velocity with white acceleration that decays: Q is the integral of q f f', f what a push has become."""
    nodes, weights = np.polynomial.legendre.leggauss(40)
    since = np.append((nodes + 1) * dt / 2, dt)
    keep = np.exp(-decay * since)
    pushed = np.stack(((1 - keep) / decay if decay else since, keep))
    noise = q * dt / 2 * (pushed[:, :-1] * weights) @ pushed[:, :-1].T
    return np.array([[1.0, pushed[0, -1]], [0.0, pushed[1, -1]]]), noise
