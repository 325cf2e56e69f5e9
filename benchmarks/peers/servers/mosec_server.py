"""mosec: decode and inference in one stage, or in two stages that its web layer pipelines."""

from typing import Any

import numpy as np
from mosec import Server, Worker

from benchmarks.peers.servers.plan import Plan
from benchmarks.peers.servers.work import Work, make_decoder


class Raw(Worker):
    """The body is the picture: https://mosecorg.github.io/mosec/reference/interface.html, ``Worker.deserialize``."""

    def deserialize(self, data: bytes) -> bytes:
        """As it came."""
        return data


class Preprocess(Raw):
    """The first of two stages."""

    def __init__(self) -> None:
        super().__init__()
        plan = Plan.read()
        self._decoder = make_decoder(plan.decoder, plan.model)
        self._shape = plan.model.input.shape

    def forward(self, data: bytes) -> Any:  # mosec's signature
        """One picture."""
        row = np.empty(self._shape, np.uint8)
        self._decoder.decode(data, row)
        return row


class Inference(Worker):
    """The second of two stages."""

    def __init__(self) -> None:
        super().__init__()
        self._work = Work(Plan.read())

    def forward(self, data: list[Any]) -> list[dict[str, Any]]:
        """A batch of rows."""
        return self._work.infer(data)


class Whole(Raw):
    """Both in one stage."""

    def __init__(self) -> None:
        super().__init__()
        self._work = Work(Plan.read())

    def forward(self, data: list[bytes]) -> list[dict[str, Any]]:
        """A batch of pictures."""
        return self._work.classify(data)


def main() -> None:
    """Serves until SIGTERM; address, port and time-out come from MOSEC_ variables."""
    choice = Plan.read().choice
    server = Server()
    batching = {"num": choice.processes, "max_batch_size": choice.batch_size, "max_wait_time": choice.wait_ms}
    if preprocesses := choice.options.get("preprocess_processes"):
        server.append_worker(Preprocess, num=preprocesses)
        server.append_worker(Inference, **batching)
    else:
        server.append_worker(Whole, **batching)
    server.run()


if __name__ == "__main__":
    main()
