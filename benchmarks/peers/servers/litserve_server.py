"""LitServe: each worker decodes its batch, then infers."""

from typing import Annotated, Any

import litserve
from fastapi import Body
from pydantic import RootModel

from benchmarks.peers.servers.plan import Plan
from benchmarks.peers.servers.work import Work


class Picture(RootModel[bytes]):
    """The body, as it is; in base64, as the page on speed sends it, it would be a third larger.

    LitServe hands the annotation of ``request`` to FastAPI, which makes it of the body:
    https://lightning.ai/docs/litserve/features/request-response-format. Plain ``bytes`` would do, but LitServe formats
    each request for its debug log, whether it is on or off: of 4 MB that takes 40 ms.
    """

    def __repr__(self) -> str:
        return "Picture"

    __str__ = __repr__


class Classifier(litserve.LitAPI):
    """The four steps of https://lightning.ai/docs/litserve/api-reference/litapi."""

    def setup(self, device: str) -> None:  # noqa: ARG002 - LitServe's signature
        """Once a worker."""
        self._work = Work(Plan.read())

    def decode_request(self, request: Annotated[Picture, Body(media_type="image/jpeg")]) -> Any:  # LitServe's signature
        """One picture."""
        return self._work.decode(request.root)

    def batch(self, inputs: list[Any]) -> list[Any]:
        """As it is: the model's input is made of the list."""
        return inputs

    def predict(self, x: list[Any]) -> list[dict[str, Any]]:
        """A batch of rows."""
        return self._work.infer(x)

    def unbatch(self, output: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """As it is."""
        return output

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        """As it is."""
        return output


def main() -> None:
    """Serves until SIGTERM."""
    plan = Plan.read()
    choice = plan.choice
    api = Classifier(max_batch_size=choice.batch_size, batch_timeout=choice.wait_ms / 1000)
    server = litserve.LitServer(
        api,
        accelerator="cpu",
        workers_per_device=choice.processes,
        fast_queue=choice.options.get("fast_queue", False),
        timeout=60,
    )
    server.run(
        host="127.0.0.1",
        port=plan.port,
        num_api_servers=choice.options.get("api_servers"),
        generate_client_file=False,
        log_level="warning",
        access_log=False,
    )


if __name__ == "__main__":
    main()
