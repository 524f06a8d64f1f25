"""From a torch network to what the other runtimes read: OpenVINO's IR, ONNX, TorchScript.

Traced once, with the pre-processing in front, for any batch size and one picture size, or any where the network can.
Torch runs on one thread meanwhile: tracing computes next to nothing, and thread teams only wait for one another on a
busy machine.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from streampose.errors import ModelError
from streampose.models.absorb import absorb_shuffles
from streampose.models.manifest import InputSpec
from streampose.models.networks import running
from streampose.runtime.preprocess import for_pictures

OPSET = 17


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """One torch thread, and no warnings: that tracing is to give way to `torch.export` one day is no user's concern."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.set_num_threads(before)


def _whole(network: nn.Module, spec: InputSpec) -> nn.Module:
    return for_pictures(absorb_shuffles(network.float().cpu()), spec)


def _pictures(width: int, height: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (2, height, width, 3), dtype=torch.uint8, generator=generator)


def _run_once(network: nn.Module, spec: InputSpec, width: int, height: int) -> tuple[nn.Module, torch.Tensor]:
    """`network` behind its pre-processing, having run once on the pictures returned: some make their anchors then."""
    pictures = _pictures(width, height)
    with running(width, height):
        whole = _whole(network, spec)
        with torch.inference_mode(), _one_thread():
            whole(pictures)
    return whole, pictures


def trace(network: nn.Module, spec: InputSpec, width: int, height: int) -> tuple[Any, torch.Tensor]:
    """TorchScript of `network` behind its pre-processing, and the pictures (2, height, width, 3) it was traced on.

    Raises ModelError where it does not take pictures of that size.
    """
    whole, pictures = _run_once(network, spec, width, height)
    with torch.no_grad(), _one_thread():
        return torch.jit.trace(whole, pictures, check_trace=False), pictures


def to_openvino(network: Any, spec: InputSpec, width: int, height: int, *, any_size: bool = False) -> Any:
    """An OpenVINO model of `network`: (B, height, width, 3) uint8 BGR in, any B; with `any_size` (detectors that are not
    end-to-end) height and width are free, too, and are to be fixed by `reshape` before it is compiled.

    Goes straight to the PyTorch front end; the converter around it reports usage to its maker.
    """
    from streampose.runtime.quiet_openvino import ov

    if any_size:
        network.make_anchors_anew()
    traced, pictures = trace(network, spec, width, height)
    from openvino._offline_transformations import apply_moc_transformations
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    front = FrontEndManager().load_by_framework("pytorch")
    decoder = TorchScriptPythonDecoder(traced, example_input=pictures)
    try:
        model = front.convert(front.load(decoder))
    except RuntimeError as error:
        raise ModelError(f"OpenVINO cannot convert the network ({str(error).splitlines()[-1]:.160})") from error
    parameter = model.get_parameters()[0]
    parameter.set_element_type(ov.Type.u8)
    parameter.set_partial_shape(ov.PartialShape([-1, -1, -1, 3] if any_size else [-1, height, width, 3]))
    model.validate_nodes_and_infer_types()
    apply_moc_transformations(model, cf=True)
    return model


def to_onnx(network: nn.Module, spec: InputSpec, width: int, height: int) -> bytes:
    """The same as an ONNX file's content: input `pictures`, outputs `output`, batch dimension free."""
    whole, pictures = _run_once(network, spec, width, height)
    file = io.BytesIO()
    with torch.no_grad(), _one_thread():
        torch.onnx.export(
            whole,
            (pictures,),
            file,
            dynamo=False,
            input_names=["pictures"],
            output_names=["output"],
            dynamic_axes={"pictures": {0: "batch"}, "output": {0: "batch"}},
            opset_version=OPSET,
        )
    return file.getvalue()


def to_torchscript(network: nn.Module, spec: InputSpec, width: int, height: int) -> bytes:
    """The same as a TorchScript archive's content."""
    traced, _ = trace(network, spec, width, height)
    file = io.BytesIO()
    with _one_thread():
        torch.jit.save(traced, file)
    return file.getvalue()
