"""Runs the model.onnx beside it in Triton's Python backend, for a Triton without the ONNX Runtime backend.

`shoal model add --runner python` copies this file into each version's folder, as model.py: it imports nothing of Shoal.
It needs numpy, and OpenVINO or ONNX Runtime, in the Python of Triton's stub. Each instance is a process of its own.
"""

from __future__ import annotations

import ctypes
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import triton_python_backend_utils as pb_utils

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Run = Callable[[np.ndarray[Any, Any]], Sequence[np.ndarray[Any, Any]]]

_MODEL = "model.onnx"
_USED = b"used_dltensor"


class TritonPythonModel:
    """One instance."""

    def initialize(self, args: dict[str, str]) -> None:
        """Loads the model with the best runtime at hand: ONNX Runtime on a GPU, else OpenVINO, else ONNX Runtime."""
        config = json.loads(args["model_config"])
        self._input: str = config["input"][0]["name"]
        self._outputs: list[str] = [output["name"] for output in config["output"]]
        instances = sum(max(int(group.get("count", 1)), 1) for group in config["instance_group"])
        threads = max(1, len(os.sched_getaffinity(0)) // instances)
        file = Path(args["model_repository"]) / args["model_version"] / _MODEL
        device = int(args["model_instance_device_id"]) if args["model_instance_kind"] == "GPU" else None
        self._run, name = _open(str(file), self._outputs, threads, device)
        pb_utils.Logger.log_info(f"{args['model_instance_name']}: {file} on {name}, {threads} threads")

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Runs all requests as one batch; if that fails, each alone, so that an error is its own request's."""
        pictures = [np.from_dlpack(pb_utils.get_input_tensor_by_name(request, self._input)) for request in requests]
        try:
            outputs = self._run(pictures[0] if len(pictures) == 1 else np.concatenate(pictures))
        except Exception as error:
            if len(requests) > 1:
                return [response for request in requests for response in self.execute([request])]
            return [pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error)))]
        ends = np.cumsum([len(each) for each in pictures])
        return [
            self._response(request, [output[end - len(each) : end] for output in outputs])
            for request, each, end in zip(requests, pictures, ends, strict=True)
        ]

    def _response(self, request: Any, outputs: Sequence[np.ndarray[Any, Any]]) -> Any:  # Triton's
        wanted = set(request.requested_output_names())
        named = zip(self._outputs, outputs, strict=True)
        return pb_utils.InferenceResponse([_tensor(name, output) for name, output in named if name in wanted])


def _tensor(name: str, array: np.ndarray[Any, Any]) -> Any:  # Triton's
    """``array`` as Triton's, by DLPack, as ``execute`` has its inputs.

    In a stub that was built against numpy 1, with numpy 2, ``as_numpy()`` repeats the first number and
    ``Tensor(name, array)`` is empty, both without a word. And stubs name a capsule that they have used otherwise than
    numpy expects, which would complain of each on standard error.
    """
    capsule = np.ascontiguousarray(array).__dlpack__()
    tensor = pb_utils.Tensor.from_dlpack(name, capsule)
    _set_name(capsule, _USED)
    return tensor


_set_name = ctypes.pythonapi.PyCapsule_SetName
_set_name.argtypes = [ctypes.py_object, ctypes.c_char_p]


def _open(file: str, outputs: Sequence[str], threads: int, device: int | None) -> tuple[Run, str]:
    """The model as a function of a batch, ``(n, …)`` to one array an output, and the runtime's name."""
    onnxruntime, openvino = _import("onnxruntime"), _import("openvino")
    if onnxruntime and device is not None and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        provider = ("CUDAExecutionProvider", {"device_id": device})
        return _onnxruntime(onnxruntime, file, outputs, threads, [provider]), "ONNX Runtime, CUDA"
    if openvino:
        return _openvino(openvino, file, outputs, threads), "OpenVINO"
    if onnxruntime:
        return _onnxruntime(onnxruntime, file, outputs, threads, ["CPUExecutionProvider"]), "ONNX Runtime"
    raise ModuleNotFoundError("neither openvino nor onnxruntime is installed in the Python of Triton's stub")


def _import(name: str) -> Any:  # a module, or None
    try:
        return __import__(name)
    except ImportError:
        return None


def _openvino(openvino: Any, file: str, outputs: Sequence[str], threads: int) -> Run:  # the module
    core = openvino.Core()
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": str(threads),
        "INFERENCE_PRECISION_HINT": "f32",
        "ENABLE_CPU_PINNING": False,  # instances share the cores
    }
    compiled = core.compile_model(core.read_model(file), "CPU", settings)
    request = compiled.create_infer_request()
    ports = [compiled.output(name) for name in outputs]

    def run(pictures: np.ndarray[Any, Any]) -> Sequence[np.ndarray[Any, Any]]:
        results = request.infer(pictures, share_inputs=True)
        return [results[port] for port in ports]

    return run


def _onnxruntime(
    onnxruntime: Any,  # the module
    file: str,
    outputs: Sequence[str],
    threads: int,
    providers: list[Any],
) -> Run:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(file, options, providers=providers)
    name = session.get_inputs()[0].name

    def run(pictures: np.ndarray[Any, Any]) -> Sequence[np.ndarray[Any, Any]]:
        found: Sequence[np.ndarray[Any, Any]] = session.run(list(outputs), {name: pictures})
        return found

    return run
