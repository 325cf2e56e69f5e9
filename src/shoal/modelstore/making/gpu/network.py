"""A network as a function of frames: TorchScript, torch.export, AOTInductor, ONNX; each on one GPU. Needs torch."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING, Any, Final

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    Function = Callable[[torch.Tensor], Any]

DTYPES: Final = {"UINT8": torch.uint8, "FP16": torch.float16, "BF16": torch.bfloat16, "FP32": torch.float32}
_INPUT: Final = "shoal.runner.input"
"""``FP16 NCHW``: what the network itself takes. Default: ``UINT8 NHWC``, the frames as they are."""
_MEAN, _STD = "shoal.runner.mean", "shoal.runner.std"
"""Of pixels in [0, 255], in the order of the network's channels."""
_COMPILED: Final = "data/aotinductor"
"""In the names of an archive's members, where it holds compiled code."""


class Network:
    """What the runner executes; any number of lanes may, each on its stream."""

    def __init__(self, file: Path | None, parameters: Mapping[str, str], outputs: Sequence[str], device: int) -> None:
        """Loads it.

        Args:
            file: ``.pt``, ``.pth``: TorchScript; ``.pt2``: exported or compiled; ``.onnx``. None: what would be its
                input is the output, as the first step of an ensemble.
            parameters: The model's.
            outputs: Names of what it answers, in its order.
            device: The GPU's number.

        Raises:
            ValueError: a parameter or the file makes no sense.
        """
        dtype, _, layout = parameters.get(_INPUT, "UINT8 NHWC").partition(" ")
        if dtype not in DTYPES or layout not in {"NCHW", "NHWC"}:
            raise ValueError(f"{_INPUT} {parameters[_INPUT]!r}: expected {' or '.join(DTYPES)}, then NCHW or NHWC")
        self._dtype, self._channels_first = DTYPES[dtype], layout == "NCHW"
        self._mean, self._std = (
            _triple(parameters, name, default, device) for name, default in ((_MEAN, 0.0), (_STD, 1.0))
        )
        self._outputs = tuple(outputs)
        kind = file.suffix if file else ""
        self.recordable = kind != ".onnx"
        """Whether a CUDA graph can be made of it."""
        self._run: Function = lambda pictures: pictures
        if file and kind == ".onnx":
            self._run = _onnx(file, outputs, device)
        elif file:
            self._run = _exported(file, device) if kind == ".pt2" else _script(file, self._dtype, device)

    def __call__(self, frames: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The outputs, ``(n, …)`` each, of uint8 ``(n, height, width, 3)``; on the current stream."""
        found = self._run(self._as_input(frames))
        if isinstance(found, dict):
            return tuple(found[name] for name in self._outputs)
        return (found,) if isinstance(found, torch.Tensor) else tuple(found)

    def _as_input(self, frames: torch.Tensor) -> torch.Tensor:
        if self._dtype is not torch.uint8:
            frames = ((frames.float() - self._mean) / self._std).to(self._dtype)
        # Channels stay last in memory, which is what tensor cores take.
        return frames.permute(0, 3, 1, 2) if self._channels_first else frames


def _triple(parameters: Mapping[str, str], name: str, default: float, device: int) -> torch.Tensor:
    numbers = [float(word) for word in parameters.get(name, str(default)).replace(",", " ").split()]
    if len(numbers) not in {1, 3}:
        raise ValueError(f"{name} {parameters[name]!r}: expected one number, or three")
    return torch.tensor(numbers, device=device)


def _script(file: Path, dtype: torch.dtype, device: int) -> Function:
    module = torch.jit.load(str(file), map_location=f"cuda:{device}").eval()
    if dtype.is_floating_point:
        module = module.to(dtype)
    for parameter in module.parameters():
        if parameter.dim() == 4:  # convolutions
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    # Batch normalisations folded into convolutions give these a bias, and cuDNN slower kernels: 15 % of a ResNet-50.
    return torch.jit.freeze(module, optimize_numerics=False)


def _exported(file: Path, device: int) -> Function:
    with zipfile.ZipFile(file) as archive:
        compiled = any(_COMPILED in name for name in archive.namelist())
    if compiled:
        # Its own locks can't be recorded in a CUDA graph, and one thread starts all batches.
        return torch._inductor.aoti_load_package(  # noqa: SLF001 - documented as it is
            str(file), run_single_threaded=True, device_index=device
        )
    return torch.export.load(file).module().to(f"cuda:{device}")


def _onnx(file: Path, outputs: Sequence[str], device: int) -> Function:
    import onnxruntime

    wanted = ("TensorrtExecutionProvider", "CUDAExecutionProvider")
    names = [name for name in wanted if name in onnxruntime.get_available_providers()]
    if not names:
        raise ValueError(f"{file.name}: the ONNX Runtime here has no provider for GPUs; onnxruntime-gpu has")
    session = onnxruntime.InferenceSession(str(file), providers=[(name, {"device_id": device}) for name in names])
    if session.get_providers()[0] not in names:  # it goes on without those whose libraries it doesn't find
        raise ValueError(f"{file.name}: ONNX Runtime can't use this GPU; its log says what it misses")
    input_ = session.get_inputs()[0]

    def run(frames: torch.Tensor) -> list[torch.Tensor]:
        frames = frames.contiguous()
        binding = session.io_binding()
        kind = str(frames.dtype).removeprefix("torch.")
        binding.bind_input(input_.name, "cuda", device, kind, list(frames.shape), frames.data_ptr())
        for name in outputs:
            binding.bind_output(name, "cuda", device)
        torch.cuda.current_stream().synchronize()  # the session has a stream of its own
        session.run_with_iobinding(binding)
        return [torch.from_dlpack(value) for value in binding.get_outputs()]

    return run
