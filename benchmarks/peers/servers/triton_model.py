"""Triton: decode and model in its Python backend.

After https://github.com/triton-inference-server/python_backend/tree/main/examples/preprocessing: the picture is a
tensor of bytes, uint8 ``(n,)``.
"""

from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from benchmarks.peers.servers.plan import Plan
from benchmarks.peers.servers.work import Work


class TritonPythonModel:
    """One instance, in a process of its own."""

    def initialize(self, _args: dict[str, str]) -> None:
        """Once an instance."""
        self._work = Work(Plan.read())

    def execute(self, requests: list[Any]) -> list[Any]:
        """What the dynamic batcher put together; each request holds one picture."""
        # An array is memory of its tensor, which must live as long.
        tensors = [pb_utils.get_input_tensor_by_name(request, "picture") for request in requests]
        pictures = [memoryview(tensor.as_numpy().reshape(-1)) for tensor in tensors]
        return [_response(answer) for answer in self._work.classify(pictures)]


def _response(answer: dict[str, Any]) -> Any:  # Triton's
    classes, probabilities = zip(*answer["classes"], strict=True)
    tensors = {
        "classes": np.array([classes], np.int32),
        "probabilities": np.array([probabilities], np.float32),
        "batch": np.array([[answer["batch"]]], np.int32),
    }
    return pb_utils.InferenceResponse([pb_utils.Tensor(name, value) for name, value in tensors.items()])
