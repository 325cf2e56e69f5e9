"""LitServe: each worker decodes its batch, then infers."""

from typing import Annotated, Any

import litserve
from fastapi import Body

from peers.servers.plan import Plan
from peers.servers.work import Work

# LitServe hands the annotation of ``request`` to FastAPI, so that the body may be the picture's bytes as they are:
# https://lightning.ai/docs/litserve/features/request-response-format. In base64 it would be a third larger.
Picture = Annotated[bytes, Body(media_type="image/jpeg")]


class Classifier(litserve.LitAPI):
    """The four steps of https://lightning.ai/docs/litserve/api-reference/litapi."""

    def setup(self, device: str) -> None:  # noqa: ARG002 - LitServe's signature
        """Once a worker."""
        self._work = Work(Plan.read())

    def decode_request(self, request: Picture) -> Any:  # noqa: ANN401 - LitServe's signature
        """One picture."""
        return self._work.decode(request)

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
