"""These networks are small: one torch thread."""

from tests.one_thread import _one_torch_thread  # noqa: F401
