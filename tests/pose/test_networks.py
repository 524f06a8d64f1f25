"""Our HRNet and Lite-HRNet against the published ones: names, shapes and numbers for weights made by formula."""

import hashlib
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from streampose.errors import ModelError
from streampose.pose.network import build_pose_network, list_networks

REFERENCE = json.loads((Path(__file__).parent / "data" / "reference.json").read_text())


def formula_weights(name: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """One parameter or buffer, drawn from its published name."""
    generator = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if name.endswith("running_mean"):
        return generator.normal(0, 0.1, shape).astype("f4")
    if name.endswith("running_var"):
        return generator.uniform(0.8, 1.2, shape).astype("f4")
    if len(shape) == 1:
        low, high = (0.8, 1.2) if name.endswith("weight") else (-0.1, 0.1)
        return generator.uniform(low, high, shape).astype("f4")
    return (generator.normal(0, 1, shape) * np.sqrt(1.0 / np.prod(shape[1:]))).astype("f4")


def formula_input(height: int, width: int) -> torch.Tensor:
    yy, xx, cc = np.meshgrid(np.arange(height), np.arange(width), np.arange(3), indexing="ij")
    x = (np.sin(0.05 * xx + 0.3 * cc) * np.cos(0.03 * yy - 0.2 * cc)).astype("f4")
    return torch.from_numpy(x.transpose(2, 0, 1)[None].copy())


@pytest.mark.parametrize(
    ("name", "channels_last"),
    [("litehrnet18", False), ("litehrnet18", True), ("hrnet_w32", False), ("hrnet_w48", False)],
)
def test_equals_the_published_network(name: str, channels_last: bool) -> None:
    expected = REFERENCE[name]
    network = build_pose_network({"network": name, "joints": 17}).eval()
    state = network.state_dict()
    lines = [f"{key}\t{'x'.join(map(str, value.shape)) or 'scalar'}" for key, value in state.items()]
    assert len(lines) == expected["tensors"]
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == expected["keys_sha256"]

    network.load_state_dict(
        {key: torch.from_numpy(np.asarray(formula_weights(key, tuple(value.shape)))) for key, value in state.items()}
    )
    x = formula_input(expected["height"], expected["width"])
    if channels_last:
        network, x = network.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    with torch.no_grad():
        heatmaps = network(x)
    assert heatmaps.shape == (1, 17, expected["height"] // 4, expected["width"] // 4)
    found = heatmaps.numpy().ravel()[expected["cells"]]
    assert np.abs(found - expected["values"]).max() < 1e-4 * expected["peak"]


@pytest.mark.parametrize("name", list_networks())
def test_every_preset_gives_heatmaps_of_a_quarter(name: str) -> None:
    network = build_pose_network({"network": name, "joints": 6}).eval()
    with torch.no_grad():
        assert network(torch.zeros(1, 3, 64, 96)).shape == (1, 6, 16, 24)


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(ModelError, match="did you mean hrnet_w32"):
        build_pose_network({"network": "hrnet_w23"})
