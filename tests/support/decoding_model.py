"""A model for Triton's Python backend that decodes pictures itself, as the GPU runner does, with Pillow."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoal.engine.triton import encoded_rows
from shoal.modelstore.making.foreign import add_configured
from support import decoding_rows
from support.tiny_models import COLOURS

if TYPE_CHECKING:
    from shoal.modelconfig.model import ModelConfig

# See support.python_model: with numpy 2, tensors go through DLPack.
MODEL = """
import json
import time

import numpy as np
import triton_python_backend_utils as pb_utils

import decoding_rows


class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        begun = time.perf_counter()
        encoded = pb_utils.get_input_tensor_by_name(request, "encoded_rows")
        if encoded is None:
            pictures = np.from_dlpack(pb_utils.get_input_tensor_by_name(request, "image"))
            statuses = np.zeros(len(pictures), np.int32)
        else:
            content = np.from_dlpack(encoded)
            try:
                pictures, statuses = decoding_rows.decode(content, {shape}, "uint8")
            except ValueError as error:
                return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error)))
            self.note(content)
        decoded = time.perf_counter()
        if (pictures == {poison}).all(axis=(1, 2, 3)).any():
            return pb_utils.InferenceResponse(error=pb_utils.TritonError("poisoned"))
        means = (pictures.astype(np.float32) / 255).mean(axis=(1, 2))
        leads = 20 * means - 10 * (means.sum(axis=1, keepdims=True) - means)
        logits = np.concatenate([leads, np.full((len(means), 1), 6, np.float32)], axis=1).astype(np.float32)
        logits[statuses != 0] = np.nan
        reports = np.zeros((len(means), 4), np.int32)
        reports[:, 0] = statuses
        reports[:, 1:] = 100, 1 + (decoded - begun) * 1e6, 1 + (time.perf_counter() - decoded) * 1e6
        named = {{"logits": logits, "row_report": reports}}
        wanted = request.requested_output_names()
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor.from_dlpack(name, value) for name, value in named.items() if name in wanted]
        )

    def note(self, content):
        kinds = decoding_rows.encoded_rows.table(content, len(content))["kind"].tolist()
        with open({seen!r}, "a") as file:
            file.write(json.dumps(kinds) + "\\n")
"""

DECODER = """
import json

import numpy as np
import triton_python_backend_utils as pb_utils

import decoding_rows


class TritonPythonModel:
    def initialize(self, args):
        picture = json.loads(args["model_config"])["input"][0]
        self.name, self.shape = picture["name"], tuple(map(int, picture["dims"]))

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        encoded = pb_utils.get_input_tensor_by_name(request, "encoded_rows")
        if encoded is None:
            pixels = np.from_dlpack(pb_utils.get_input_tensor_by_name(request, self.name))
            statuses = np.zeros(len(pixels), np.int32)
        else:
            pixels, statuses = decoding_rows.decode(np.from_dlpack(encoded), self.shape, "uint8")
        reports = np.zeros((len(pixels), 4), np.int32)
        reports[:, 0], reports[:, 1:] = statuses, 1
        named = {"pixels": pixels, "row_report": reports}
        return pb_utils.InferenceResponse([pb_utils.Tensor.from_dlpack(name, each) for name, each in named.items()])
"""
"""The first step of an ensemble."""

CONFIG = """
name: "{name}"
backend: "python"
max_batch_size: 4
input [
  {{ name: "image" data_type: TYPE_UINT8 dims: [{dims}] optional: true }},
  {{ name: "encoded_rows" data_type: TYPE_UINT8 dims: [-1] optional: true }}
]
output [
  {{ name: "logits" data_type: TYPE_FP32 dims: [4] label_filename: "labels.txt" }},
  {{ name: "row_report" data_type: TYPE_INT32 dims: [4] }}
]
dynamic_batching {{ max_queue_delay_microseconds: 50000 }}
instance_group [ {{ count: 1 kind: KIND_CPU }} ]
parameters {{ key: "shoal.task" value {{ string_value: "classification" }} }}
parameters {{ key: "shoal.resize" value {{ string_value: "letterbox" }} }}
parameters {{ key: "shoal.lanes" value {{ string_value: "2" }} }}
"""
POISON = 77
"""A picture of nothing but this value makes its batch fail."""


def add_decoding_classifier(
    store: Path, scratch: Path, name: str = "decodes", *, size: int = 32, **how: Any
) -> ModelConfig:
    """Names the dominant colour; ``scratch`` is a folder for the files that go in, ``how`` as ``add_configured``."""
    scratch.mkdir(parents=True, exist_ok=True)
    shape = (size, size, 3)
    (scratch / "model.py").write_text(MODEL.format(shape=shape, poison=POISON, seen=str(scratch / "seen")))
    (scratch / "config.pbtxt").write_text(CONFIG.format(name=name, dims=", ".join(map(str, shape))))
    (scratch / "labels.txt").write_text("".join(f"{colour}\n" for colour in COLOURS))
    config = add_configured(store, scratch / "model.py", name, scratch / "config.pbtxt", scratch / "labels.txt", **how)
    for module in (decoding_rows, encoded_rows):
        source = Path(module.__file__)
        shutil.copyfile(source, config.path.with_name(source.name))
    return config


def write_decoder(folder: Path) -> None:
    """The files of a runner that only decodes."""
    folder.mkdir(parents=True)
    (folder / "model.py").write_text(DECODER)
    shutil.copyfile(decoding_rows.__file__, folder / "decoding_rows.py")


def seen(scratch: Path) -> list[list[int]]:
    """The kinds of rows of each batch of ``encoded_rows`` that the model got."""
    file = scratch / "seen"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
