"""The formats of model files, told by their content, and what Triton runs each with.

Neither PyTorch nor TensorRT is imported: a file's tensors can't be read, so whoever adds it says them.
"""

from __future__ import annotations

import re
import zipfile
from enum import StrEnum
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from shoal.errors import ConfigurationError
from shoal.runtime import intake

if TYPE_CHECKING:
    from pathlib import Path

_HEAD_BYTES = 4096
_ONNX = b"\x08"  # the tag of ir_version, which every exporter writes first
_MAGIC = (
    (
        0,
        b"\x89HDF\r\n",
        "is HDF5, as Keras saves models; `model.export(…, format='onnx')` makes it ONNX",
    ),
    (4, b"TFL3", "is a TensorFlow Lite model; make it ONNX with tf2onnx"),
    (4, b"ORTM", "is a model in ONNX Runtime's own format; add the .onnx that it was made from"),
    (8, b'{"', "is safetensors: weights without a graph; export the model to ONNX"),
    (0, b"GGUF", "is GGUF, a language model's weights"),
    (0, b"\x80\x02", "is a pickle, as PyTorch once saved weights; export the model to ONNX"),
    (0, b"\x80\x04", "is a pickle; of scikit-learn, make it ONNX with skl2onnx"),
    (0, b"\x1f\x8b", "is packed with gzip; unpack it first"),
    (0, b"BZh", "is packed with bzip2; unpack it first"),
    (0, b"\xfd7zXZ", "is packed with xz; unpack it first"),
    (0, b"\x28\xb5\x2f\xfd", "is packed with zstd; unpack it first"),
    (0, b"7z\xbc\xaf", "is a 7z archive; unpack it first"),
    (257, b"ustar", "is a tar archive; unpack it first"),
    (0, b"Salted__", "is encrypted by openssl; decrypt it first"),
    (0, b"-----BEGIN ", "is PEM or PGP, perhaps encrypted; decrypt it first"),
    (0, b"\x85\x02", "is encrypted by GnuPG; decrypt it first"),
    (0, b"%PDF", "is a PDF"),
)
"""Offset, what is there, and what it says."""
_TEXTS = (
    (
        (b"<!doctype html", b"<html"),
        "is a page of HTML, as a site may answer in place of a file; download it again, from its raw address",
    ),
    ((b"<?xml",), "is XML; of OpenVINO's IR, add the ONNX model that it was made from"),
    ((b'{"', b"{\n", b"{\r", b"[{"), "is JSON: a store's error, or a model's settings"),
)
"""What it begins with behind white space, in lower case, and what that says."""
_PLAN_SUFFIXES = frozenset({".plan", ".engine", ".trt"})


Runner: TypeAlias = Literal["python", "gpu", "gpu-decode"]
"""Our own runners in Triton's Python backend."""


class Format(StrEnum):
    """What a model file is."""

    ONNX = "ONNX"
    TORCHSCRIPT = "TorchScript"
    EXPORTED = "an exported program"
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

RUNNERS: dict[Runner, dict[Format, Runtime]] = {
    "python": {Format.ONNX: Runtime("python", "", "model.onnx")},
    "gpu": {
        Format.ONNX: Runtime("python", "", "model.onnx"),
        Format.TORCHSCRIPT: Runtime("python", "", "model.pt"),
        Format.EXPORTED: Runtime("python", "", "model.pt2"),
        Format.AOT_INDUCTOR: Runtime("python", "", "model.pt2"),
    },
    "gpu-decode": RUNTIMES,
}
"""What runs the file in Triton's Python backend: ``python`` for a Triton without the ONNX Runtime backend, ``gpu``
decodes pictures, too, and ``gpu-decode`` does that alone, for a model in its own backend."""


def runtime(kind: Format, runner: Runner | None, file: Path | str = "the model") -> Runtime:
    """What Triton runs a ``file`` of ``kind`` with.

    Raises:
        ConfigurationError: nothing does, or not this runner.
    """
    if found := (RUNNERS[runner] if runner else RUNTIMES).get(kind):
        return found
    if runner is None:
        raise ConfigurationError(
            f"{file} is {kind}, which Triton can't run as it is: add it with --runner gpu, compile it with "
            "torch._inductor.aoti_compile_and_package, or export the model to ONNX"
        )
    raise ConfigurationError(f"{file} is {kind}: --runner {runner} runs {', '.join(RUNNERS[runner])}; leave it out")


def default_filename(backend: str, platform: str) -> str:
    """The file that Triton looks for where config.pbtxt has no ``default_model_filename``."""
    for usual in RUNTIMES.values():
        if platform == usual.platform != "" or (not platform and backend == usual.backend):
            return usual.filename
    return "model.py" if backend == "python" else RUNTIMES[Format.ONNX].filename


def detect(file: Path) -> Format:
    """The format of ``file``; what is nothing that we know is taken for ONNX, which its reader finds right or wrong.

    A TensorRT plan has no documented signature, so it goes by its suffix.

    Raises:
        ConfigurationError: it can't be read, or is something that Triton can't run.
    """
    try:
        with intake.opened(file) as opened:
            if zipfile.is_zipfile(opened):
                with zipfile.ZipFile(opened) as archive:
                    return _torch(file, archive.namelist())
            opened.seek(0)
            head = opened.read(_HEAD_BYTES)
    except FileNotFoundError as error:
        raise ConfigurationError(f"{file}: no such file") from error
    except IsADirectoryError as error:
        raise ConfigurationError(f"{file}: {_folder(file)}") from error
    except OSError as error:
        raise ConfigurationError(f"{file}: can't be read: {error.strerror}") from error
    except zipfile.BadZipFile as error:
        raise ConfigurationError(f"{file}: can't be read: {error}") from error
    if file.suffix in _PLAN_SUFFIXES:
        return Format.TENSORRT
    if what := _known_otherwise(head):
        raise ConfigurationError(f"{file}: {what}")
    return Format.ONNX


def _known_otherwise(head: bytes) -> str:
    """What a file that begins with ``head`` is, in words, where it is something that isn't ONNX."""
    if not head:
        return "is empty"
    if head.startswith(_ONNX):
        return ""
    if head.startswith(b"version https://git-lfs"):
        size = re.search(rb"^size (\d+)$", head, re.MULTILINE)
        of = f" of {int(size[1]):,} bytes" if size else ""
        return f"is a Git LFS pointer to the model{of}, not the model; `git lfs pull` fetches it"
    start = head.lstrip().lower()
    texts = (text for prefixes, text in _TEXTS if start.startswith(prefixes))
    return next(texts, "") or next((text for offset, magic, text in _MAGIC if head[offset:].startswith(magic)), "")


def _folder(folder: Path) -> str:
    if (folder / "saved_model.pb").exists():
        return "is a TensorFlow SavedModel; make it ONNX with tf2onnx"
    found = sorted(folder.glob("*.onnx")) or sorted(folder.glob("onnx/*.onnx"))
    return "is a folder" + (f"; name the file, such as {found[0]}" if found else " without an .onnx file")


def _torch(file: Path, members: list[str]) -> Format:
    """PyTorch's archives differ in what is in them, behind one folder named after the file."""
    inner = {member.partition("/")[2] for member in members} | set(members)
    if any(member.startswith("data/aotinductor/") for member in inner):
        return Format.AOT_INDUCTOR
    if "constants.pkl" in inner and any(member.startswith("code/") for member in inner):
        return Format.TORCHSCRIPT
    if "serialized_exported_program.json" in inner or "archive_format" in inner:
        return Format.EXPORTED
    if "model.weights.h5" in inner:
        raise ConfigurationError(f"{file}: a Keras model, which Triton can't run; `model.export(…, format='onnx')`")
    if any(member.endswith(".onnx") for member in members):
        raise ConfigurationError(f"{file}: a ZIP archive with an ONNX model in it; unpack it first")
    if "data.pkl" in inner:
        raise ConfigurationError(
            f"{file}: weights without a graph; save the model with torch.jit.save, or export it to ONNX"
        )
    raise ConfigurationError(f"{file}: an archive that is neither TorchScript nor an AOTInductor package")
