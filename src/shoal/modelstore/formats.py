"""The formats of model files, told by their content, and what Triton runs each with.

Neither PyTorch nor TensorRT is imported: a file's tensors can't be read, so whoever adds it says them.
"""

from __future__ import annotations

import zipfile
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from shoal.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

_PLAN_SUFFIXES = frozenset({".plan", ".engine", ".trt"})


class Format(StrEnum):
    """What a model file is."""

    ONNX = "ONNX"
    TORCHSCRIPT = "TorchScript"
    AOT_INDUCTOR = "an AOTInductor package"
    TENSORRT = "a TensorRT plan"


class Runtime(NamedTuple):
    """Triton's words for what runs a model, and the name that it looks for in a version's folder.

    https://github.com/triton-inference-server/core/blob/main/src/constants.h
    """

    backend: str
    platform: str
    filename: str


RUNTIMES = {
    Format.ONNX: Runtime("onnxruntime", "", "model.onnx"),
    Format.TORCHSCRIPT: Runtime("pytorch", "pytorch_libtorch", "model.pt"),
    Format.AOT_INDUCTOR: Runtime("pytorch", "torch_aoti", "model.pt2"),
    Format.TENSORRT: Runtime("tensorrt", "tensorrt_plan", "model.plan"),
}

RUNNER = Runtime("python", "", "model.onnx")
"""For a Triton without the ONNX Runtime backend: ``runner`` in its Python backend runs the file."""


def default_filename(backend: str, platform: str) -> str:
    """The file that Triton looks for where config.pbtxt has no ``default_model_filename``."""
    for runtime in RUNTIMES.values():
        if platform == runtime.platform != "" or (not platform and backend == runtime.backend):
            return runtime.filename
    return "model.py" if backend == "python" else RUNTIMES[Format.ONNX].filename


def detect(file: Path) -> Format:
    """The format of ``file``; what is nothing else is taken for ONNX, which its reader then finds right or wrong.

    A TensorRT plan has no documented signature, so it goes by its suffix.

    Raises:
        ConfigurationError: it can't be read, or is a file of PyTorch that Triton can't run.
    """
    try:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                return _torch(file, archive.namelist())
        with file.open("rb"):
            return Format.TENSORRT if file.suffix in _PLAN_SUFFIXES else Format.ONNX
    except FileNotFoundError as error:
        raise ConfigurationError(f"{file}: no such file") from error
    except (OSError, zipfile.BadZipFile) as error:
        raise ConfigurationError(f"{file}: can't be read: {error}") from error


def _torch(file: Path, members: list[str]) -> Format:
    """PyTorch's archives differ in what is in them, behind one folder named after the file."""
    inner = {member.partition("/")[2] for member in members} | set(members)
    if any(member.startswith("data/aotinductor/") for member in inner):
        return Format.AOT_INDUCTOR
    if "constants.pkl" in inner and any(member.startswith("code/") for member in inner):
        return Format.TORCHSCRIPT
    if "serialized_exported_program.json" in inner or "archive_format" in inner:
        raise ConfigurationError(
            f"{file}: an exported program, which Triton can't run as it is; compile it with "
            "torch._inductor.aoti_compile_and_package, or export the model to ONNX"
        )
    if "data.pkl" in inner:
        raise ConfigurationError(
            f"{file}: weights without a graph; save the model with torch.jit.save, or export it to ONNX"
        )
    raise ConfigurationError(f"{file}: an archive that is neither TorchScript nor an AOTInductor package")
