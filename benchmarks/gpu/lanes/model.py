"""A model for Triton's Python backend that executes several batches at once in one instance: one a lane.

Parameters in config.pbtxt: ``networks``, names of torchvision models, with commas between; ``lanes``, of each;
``awake``, up to how many batches in flight their threads look all the time rather than sleep. With several networks a
request names one in its own parameter ``network``: they share one process as they would in a native backend.

A batch goes to the GPU from ``execute`` itself, where a lane is free, and its answer leaves from the lane's thread.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from queue import SimpleQueue
from typing import Any

import triton_python_backend_utils as pb_utils
from lane import make_lanes, received


class TritonPythonModel:
    """See https://github.com/triton-inference-server/python_backend."""

    def initialize(self, args: dict[str, str]) -> None:
        """Makes all lanes."""
        config = json.loads(args["model_config"])
        parameters = {name: value["string_value"] for name, value in config["parameters"].items()}
        self.names = parameters["networks"].split(",")
        self.runners = {
            name: Runner(make_lanes(name, int(parameters["lanes"]), config["max_batch_size"]), int(parameters["awake"]))
            for name in self.names
        }

    def execute(self, requests: list[Any]) -> None:
        """Takes the requests; they are answered through their senders."""
        for request in requests:
            name = json.loads(request.parameters() or "{}").get("network", self.names[0])
            self.runners[name].submit(Job(request))

    def finalize(self) -> None:
        """Ends the threads."""
        for runner in self.runners.values():
            runner.close()


class Job:
    """One request."""

    def __init__(self, request: Any) -> None:
        # In place. With numpy 2, as_numpy() of this backend's build repeats the first number.
        self.pictures = received(pb_utils.get_input_tensor_by_name(request, "image"))
        self._sender = request.get_response_sender()

    def answer(self, logits: Any) -> None:
        """Sends what came of it."""
        # With numpy 2, Tensor(name, array) of this backend's build would be empty; and from_dlpack of a numpy array
        # prints a traceback each time, of a torch tensor it doesn't.
        tensor = pb_utils.Tensor.from_dlpack("logits", logits)
        final = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
        self._sender.send(pb_utils.InferenceResponse([tensor]), flags=final)

    def fail(self, reason: str) -> None:
        """Says that nothing came of it."""
        final = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
        self._sender.send(pb_utils.InferenceResponse(error=pb_utils.TritonError(reason)), flags=final)


class Runner:
    """The lanes of a network, a thread each."""

    def __init__(self, lanes: list[Any], awake: int) -> None:
        self._awake = awake
        self._lock = threading.Lock()
        self._waiting: deque[Job] = deque()
        self._inboxes: dict[Any, SimpleQueue[Job | None]] = {lane: SimpleQueue() for lane in lanes}
        self._free = list(lanes)
        self._threads = [threading.Thread(target=self._work, args=(lane,), daemon=True) for lane in lanes]
        for thread in self._threads:
            thread.start()

    def submit(self, job: Job) -> None:
        """Starts the job, or keeps it until a lane is free."""
        with self._lock:
            if not self._free:
                self._waiting.append(job)
                return
            lane = self._free.pop()
        self._start(lane, job)

    def close(self) -> None:
        """Returns once what runs is answered."""
        for inbox in self._inboxes.values():
            inbox.put(None)
        for thread in self._threads:
            thread.join()

    def _start(self, lane: Any, job: Job) -> None:
        try:
            lane.start(job.pictures)
        except Exception as error:
            job.fail(str(error))
            self._next(lane)
            return
        self._inboxes[lane].put(job)

    def _work(self, lane: Any) -> None:
        while (job := self._inboxes[lane].get()) is not None:
            try:
                logits = lane.wait(awake=len(self._inboxes) - len(self._free) <= self._awake)
            except Exception as error:
                logits, reason = None, str(error)
            self._next(lane)
            if logits is None:
                job.fail(reason)
            else:
                job.answer(logits)

    def _next(self, lane: Any) -> None:
        """The GPU goes on before the answer is on its way."""
        with self._lock:
            if not self._waiting:
                self._free.append(lane)
                return
            job = self._waiting.popleft()
        self._start(lane, job)
