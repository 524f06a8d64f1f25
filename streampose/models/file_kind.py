"""What a file of weights is, told by its bytes before anything in it is opened, whatever it is called."""

from __future__ import annotations

import zipfile
from pathlib import Path

from streampose.errors import ModelError, words_of


def require_pytorch(path: Path) -> None:
    """Raise ModelError, in one line that says what it is, where `path` is no file of `torch.save`.

    Those are zip archives with a `data.pkl`, before PyTorch 1.6 bare pickles.
    """
    try:
        with path.open("rb") as file:
            head = file.read(9)
        if head[4:] == b"\0\0\0\0{":  # the length of a header, and its JSON
            name = path.stem
            raise ModelError(
                f"{path}: is a safetensors file; call it {name}.safetensors, with its manifest, {name}.yaml"
            )
        names = _names_in(path) if head.startswith(b"PK") else []
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise ModelError(f"{path}: is damaged, its end is missing or wrong; get it again") from error
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({words_of(error)})") from error
    if any(name.endswith("/constants.pkl") for name in names):
        raise ModelError(f"{path}: is TorchScript, an export for another program; give the weights that it was made of")
    if not head.startswith(b"\x80") and not any(name.endswith("/data.pkl") for name in names):
        raise ModelError(
            f"{path}: is no PyTorch file; taken are .pth and .pt of PyTorch, and .safetensors, .onnx and .xml with their "
            "manifest beside them"
        )


def _names_in(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()
