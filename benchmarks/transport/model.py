"""A model for Triton's Python backend that takes pictures as tensors or as JPEGs, which it then decodes itself.

Parameters in config.pbtxt: ``network``: ``take`` (answers at once), ``openvino`` (the model.onnx at ``file``) or a name
of torchvision's (a lane for each batch in flight; lane.py); ``jobs``: batches at once; ``threads`` that decode;
``decoder``; ``path``: where packages are, since the backend's Python is isolated.

A request's own parameter ``decode`` says what becomes of JPEGs: ``server``, ``nvjpeg``, or ``nobody`` decodes them.
The first of 1000 numbers of ``take`` shows that the pictures have come: see ``mark``.
"""

from __future__ import annotations

import ctypes
import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

_CLASSES = 1000
_FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL


class TritonPythonModel:
    """See https://github.com/triton-inference-server/python_backend."""

    def initialize(self, args: dict[str, str]) -> None:
        """Makes what runs the batches."""
        config = json.loads(args["model_config"])
        told = {name: value["string_value"] for name, value in config["parameters"].items()}
        sys.path.extend(told["path"].split(":"))
        import decoding  # found from now on

        jobs = int(told["jobs"])
        self._decode = decoding.make(told["decoder"])
        self._decoders = ThreadPoolExecutor(int(told["threads"]), "decode")
        self._jobs = ThreadPoolExecutor(jobs, "job")
        self._network = Network(told, jobs)

    def execute(self, requests: list[Any]) -> None:
        """Takes the requests; threads answer them, so that one is decoded while another is executed."""
        for request in requests:
            self._jobs.submit(self._answer, Job(request))

    def finalize(self) -> None:
        """Ends the threads."""
        self._jobs.shutdown()
        self._decoders.shutdown()

    def _answer(self, job: Job) -> None:
        try:
            response = pb_utils.InferenceResponse([_tensor("logits", self._logits(job))])
        except Exception as error:
            response = pb_utils.InferenceResponse(error=pb_utils.TritonError(repr(error)))
        job.sender.send(response, flags=_FINAL)

    def _logits(self, job: Job) -> np.ndarray:
        if job.image is not None:
            return self._network.run(self._network.received(job.image))
        if job.decodes == "nobody":
            return answer([len(jpeg) for jpeg in job.jpegs])
        if job.decodes == "nvjpeg":
            return self._network.run(nvjpeg(job.jpegs))
        pictures = np.empty((len(job.jpegs), 224, 224, 3), np.uint8)
        list(self._decoders.map(self._decode, job.jpegs, pictures))
        return self._network.run(self._network.own(pictures))


class Job:
    """One request; what is read of it is read in ``execute``'s own thread."""

    def __init__(self, request: Any) -> None:
        self.image = pb_utils.get_input_tensor_by_name(request, "image")
        self.jpegs = unpacked(pb_utils.get_input_tensor_by_name(request, "jpegs")) if self.image is None else []
        self.decodes = json.loads(request.parameters() or "{}").get("decode")
        self.sender = request.get_response_sender()


def unpacked(tensor: Any) -> list[bytes]:
    """JPEGs, each behind its length, as in a BYTES tensor; with numpy 2 those can't be read here."""
    content, jpegs = memoryview(np.from_dlpack(tensor)), []
    while content:
        length = int.from_bytes(content[:4], "little")
        jpegs.append(bytes(content[4 : 4 + length]))
        content = content[4 + length :]
    return jpegs


class Network:
    """Runs up to ``jobs`` batches at once."""

    def __init__(self, told: dict[str, str], jobs: int) -> None:
        self.received = np.from_dlpack
        """An input of Triton's, where it is."""
        self.own = np.asarray
        """Decoded pictures, as a runner takes them."""
        self._free: SimpleQueue[Any] = SimpleQueue()
        for runner in self._make(told["network"], told, jobs):
            self._free.put(runner)

    def run(self, pictures: Any) -> np.ndarray:
        """The logits of uint8 ``(n, 224, 224, 3)``; waits for a free runner."""
        runner = self._free.get()
        try:
            return runner(pictures)
        finally:
            self._free.put(runner)

    def _make(self, name: str, told: dict[str, str], jobs: int) -> list[Any]:
        if name == "take":
            return [mark] * jobs
        if name == "openvino":
            return _openvino(told["file"], jobs)
        return self._lanes(name, jobs)

    def _lanes(self, name: str, jobs: int) -> list[Any]:
        import lane  # needs torch
        import torch  # where it is

        class Reach(lane.Reach):
            """Pictures that nvJPEG decoded are on the GPU already."""

            def holds(self, pictures: Any) -> bool:
                return bool(pictures.is_cuda or super().holds(pictures))

        lane.Reach = Reach
        self.received, self.own = lane.received, torch.as_tensor
        return [_of_lane(each) for each in lane.make_lanes(name, jobs, 8)]


def mark(pictures: Any) -> np.ndarray:
    """Of each picture, the red of its centre: enough to see that the right one came, and next to no work."""
    return answer(pictures[:, 112, 112, 0].tolist())


def answer(firsts: Any) -> np.ndarray:
    """1000 numbers a picture, of which the first is told."""
    logits = np.zeros((len(firsts), _CLASSES), np.float32)
    logits[:, 0] = firsts
    return logits


def nvjpeg(jpegs: Any) -> Any:
    """Decodes a batch on the GPU; resizes as the network was trained: a 224 crop of 256, antialiased."""
    import torch  # where it is
    from torchvision import io
    from torchvision.transforms.v2 import functional as to

    stream = _stream()
    with torch.cuda.stream(stream), torch.inference_mode():
        files = [torch.frombuffer(bytearray(jpeg), dtype=torch.uint8) for jpeg in jpegs]
        decoded = io.decode_jpeg(files, mode=io.ImageReadMode.RGB, device="cuda")
        cut = [to.center_crop(to.resize(picture, [256], antialias=True), [224, 224]) for picture in decoded]
        pictures = torch.stack(cut).permute(0, 2, 3, 1).contiguous()
    stream.synchronize()
    return pictures


def _stream() -> Any:
    """This thread's own."""
    import torch

    number = threading.get_ident()
    if number not in _STREAMS:
        _STREAMS[number] = torch.cuda.Stream()
    return _STREAMS[number]


_STREAMS: dict[int, Any] = {}


def _of_lane(lane: Any) -> Any:
    def run(pictures: Any) -> np.ndarray:
        lane.start(pictures)
        return lane.wait(awake=False).numpy()

    return run


def _openvino(file: str, jobs: int) -> list[Any]:
    import openvino as ov  # where it is

    model = ov.Core().compile_model(file, "CPU", {"NUM_STREAMS": 1, "ENABLE_CPU_PINNING": False})

    def runner() -> Any:
        request = model.create_infer_request()
        return lambda pictures: request.infer([pictures])[0].copy()

    return [runner() for _ in range(jobs)]


def _tensor(name: str, array: np.ndarray) -> Any:
    """``array`` as Triton's; why so: src/shoal/modelstore/making/runner.py."""
    capsule = array.__dlpack__()
    tensor = pb_utils.Tensor.from_dlpack(name, capsule)
    _set_name(capsule, b"used_dltensor")
    return tensor


_set_name = ctypes.pythonapi.PyCapsule_SetName
_set_name.argtypes = [ctypes.py_object, ctypes.c_char_p]
