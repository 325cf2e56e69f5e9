"""Runs a network on a GPU, from JPEGs or from pixels, in Triton's Python backend.

`shoal model add --runner gpu` copies this folder into each version's: it imports nothing of Shoal. It needs torch,
cuda-core and nvidia-nvjpeg in the Python of Triton's stub. One process holds all lanes of a model.

    execute                what arrives: JPEGs' headers are read
    one preparing thread   decodes and resizes into a free lane's frames (several decoding threads only slow each other)
    a thread a lane        waits for the lane's batch and answers
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

# nvJPEG has streams of its own. CUDA maps all streams to 8 queues, unless told, and whoever shares one with the
# network's graph waits for it: JPEGs were then decoded at a tenth of the speed. To be said before CUDA starts.
os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "32")

import encoded_rows
import numpy as np
import torch
import triton_python_backend_utils as pb_utils
from batch import Batch
from host_memory import HostMemory
from lane import Lane
from network import DTYPES, Network
from pipeline import Pipeline
from preparing import Preparer, unit_of

if TYPE_CHECKING:
    from collections.abc import Mapping

_LANES = "shoal.lanes"
_FILE = "shoal.model_filename"
_DEFAULT_LANES = 4
_TRITON = {f"TYPE_{name}": dtype for name, dtype in DTYPES.items()} | {
    "TYPE_INT32": torch.int32,
    "TYPE_INT64": torch.int64,
}


class TritonPythonModel:
    """See https://github.com/triton-inference-server/python_backend."""

    def initialize(self, args: dict[str, str]) -> None:
        """Loads the network and records the lanes' graphs."""
        config = json.loads(args["model_config"])
        parameters = {name: value["string_value"] for name, value in config["parameters"].items()}
        device = int(args["model_instance_device_id"])
        torch.cuda.set_device(device)
        unit = unit_of(device)
        torch.set_num_threads(1)  # copies of a megabyte are no work for teams of threads
        self._input = next(each for each in config["input"] if each["name"] != encoded_rows.INPUT)
        self._frame = [int(side) for side in self._input["dims"]]
        outputs = {
            each["name"]: _TRITON[each["data_type"]] for each in config["output"] if each["name"] != encoded_rows.REPORT
        }
        folder, name = Path(args["model_repository"]) / args["model_version"], parameters.get(_FILE)
        network = Network(folder / name if name else None, parameters, list(outputs), device)
        size = int(config["max_batch_size"])
        count = int(parameters.get(_LANES, _DEFAULT_LANES))
        try:
            lanes = [Lane(network, size, self._frame, outputs, device, stays=name is None) for _ in range(count)]
        except torch.cuda.OutOfMemoryError as error:
            advice = f"the GPU has no memory for {count} lanes of batches of {size}: lower {_LANES} or max_batch_size"
            raise pb_utils.TritonModelException(f"{advice}; {error}") from error
        self._preparer = Preparer(device, size, *self._frame[:2], HostMemory(), unit)
        self._pipeline = Pipeline(self._preparer, lanes)
        decodes = self._preparer.trouble or unit.trouble or "nvJPEG's hardware unit decodes"
        pb_utils.Logger.log_info(
            f"{args['model_name']}: {name or 'decodes alone'}, {count} lanes of up to {size}; {decodes}"
        )

    def execute(self, requests: list[Any]) -> None:
        """Takes the requests; they are answered through their senders."""
        for request in requests:
            job = Job(request)
            try:
                job.batch = Batch(*self._rows_of(request), self._preparer.decoder)
            except Exception as error:
                job.fail(str(error))
            else:
                self._pipeline.put(job)

    def finalize(self) -> None:
        """Returns once what runs is answered."""
        self._pipeline.close()

    def _rows_of(self, request: Any) -> tuple[Any, Any]:
        """A tensor's bytes and its table. Raises ValueError."""
        tensor = pb_utils.get_input_tensor_by_name(request, encoded_rows.INPUT)
        if tensor is not None:
            content = np.from_dlpack(tensor)
            frame_bytes = int(np.prod(self._frame))
            rows = encoded_rows.read(content, len(content), frame_bytes, self._frame[1::-1])
            return content.reshape(-1), rows
        tensor = pb_utils.get_input_tensor_by_name(request, self._input["name"])
        if tensor is None:
            raise ValueError(f"expected an input, {self._input['name']} or {encoded_rows.INPUT}")
        frames = np.from_dlpack(tensor)
        rows = np.zeros(len(frames), encoded_rows.ENTRY)
        rows["kind"], rows["length"] = encoded_rows.PIXELS, frames[0].nbytes
        rows["offset"] = np.arange(len(frames)) * frames[0].nbytes
        return frames.reshape(-1), rows


class Job:
    """One request."""

    batch: Batch

    def __init__(self, request: Any) -> None:
        self._request = request  # whose memory is read in place
        self._sender = request.get_response_sender()
        self._arrived = perf_counter()
        self.waited = self.decoded = 0.0

    def begin(self) -> None:
        """Its turn has come."""
        self.waited = perf_counter() - self._arrived

    def answer(self, outputs: Mapping[str, torch.Tensor], seconds: float) -> None:
        """Sends what came of it."""
        report = torch.empty((len(self.batch.rows), len(encoded_rows.REPORT_FIELDS)), dtype=torch.int32)
        report[:, 0] = torch.from_numpy(self.batch.status)
        report[:, 1:] = torch.tensor([int(part * 1e6) for part in (self.waited, self.decoded, seconds)])
        named = {**outputs, encoded_rows.REPORT: report}
        wanted = set(self._request.requested_output_names())
        # By DLPack: with numpy 2, Tensor(name, array) of the wheel's stub is empty.
        tensors = [pb_utils.Tensor.from_dlpack(name, value) for name, value in named.items() if name in wanted]
        self._send(pb_utils.InferenceResponse(tensors))

    def fail(self, reason: str) -> None:
        """Says that nothing came of it."""
        self._send(pb_utils.InferenceResponse(error=pb_utils.TritonError(reason)))

    def _send(self, response: Any) -> None:
        self._sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
