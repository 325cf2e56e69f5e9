"""A model for Triton's Python backend that names the dominant colour, for servers without another backend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shoal.modelstore.making.foreign import add_configured
from support.tiny_models import COLOURS

if TYPE_CHECKING:
    from pathlib import Path

    from shoal.modelconfig.model import ModelConfig

# With numpy 2, the fetched server's as_numpy() repeats the first number, and its Tensor() makes outputs of no bytes.
MODEL = """
import numpy as np
import triton_python_backend_utils as pb_utils

VERSION = {version}


class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        pictures = np.from_dlpack(pb_utils.get_input_tensor_by_name(request, "image")).astype(np.float32) / 255
        means = pictures.mean(axis=(1, 2))
        leads = 20 * means - 10 * (means.sum(axis=1, keepdims=True) - means)
        logits = np.concatenate([leads, np.full((len(means), 1), 6, np.float32)], axis=1).astype(np.float32)
        return pb_utils.InferenceResponse([pb_utils.Tensor.from_dlpack("logits", logits)])
"""

CONFIG = """
name: "{name}"
backend: "python"
max_batch_size: 4
input [ {{ name: "image" data_type: TYPE_UINT8 dims: [32, 32, 3] }} ]
output [ {{ name: "logits" data_type: TYPE_FP32 dims: [4] label_filename: "labels.txt" }} ]
dynamic_batching {{ max_queue_delay_microseconds: 1000 }}
instance_group [ {{ count: 1 kind: KIND_CPU }} ]
parameters {{ key: "shoal.task" value {{ string_value: "classification" }} }}
"""


def add_python_classifier(
    store: Path, scratch: Path, name: str = "tiny", *, code: str = MODEL, **how: Any
) -> ModelConfig:
    """Adds it; ``scratch`` is a folder for the files that go in, ``how`` are ``version`` and ``force``."""
    scratch.mkdir(parents=True, exist_ok=True)
    (scratch / "model.py").write_text(code.replace("{version}", str(how.get("version", 1))))
    (scratch / "config.pbtxt").write_text(CONFIG.format(name=name))
    (scratch / "labels.txt").write_text("".join(f"{colour}\n" for colour in COLOURS))
    return add_configured(store, scratch / "model.py", name, scratch / "config.pbtxt", scratch / "labels.txt", **how)
