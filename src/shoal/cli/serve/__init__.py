"""``shoal serve``: one part of the service a process, as containers and ``shoal up`` run them.

May use: batcher, batching, cli, errors, explain, modelconfig, modelstore/publishing, observe, pictures, pipeline,
router, runtime, service, triton, worker.
"""

from __future__ import annotations

from typing import ClassVar

import typer

from shoal.cli.lazy import Command, LazyGroup

COMMANDS = {
    "router": Command("shoal.cli.serve.router:serve_router", "router", "Envoy: keys, limits, routes, load balancer."),
    "router-config": Command(
        "shoal.cli.serve.router_config:serve_router_config", "router", "The files of an Envoy that runs elsewhere."
    ),
    "batcher": Command("shoal.cli.serve.batcher:serve_batcher", "batcher", "Queues requests, a queue a model."),
    "worker": Command("shoal.cli.serve.worker:serve_worker", "worker", "Fetches, decodes and runs the model."),
    "pipeline": Command("shoal.cli.serve.pipeline:serve_pipeline", "worker", "Asks models about parts of a picture."),
    "triton": Command("shoal.cli.serve.triton:serve_triton", "local", "A tritonserver found on this machine."),
    "model-sync": Command(
        "shoal.cli.serve.model_sync:serve_model_sync", "model-sync", "Keeps a model repository as published."
    ),
    "image-retention": Command(
        "shoal.cli.serve.image_retention:serve_image_retention", "", "Deletes pictures that are old enough, once."
    ),
}


class ServeGroup(LazyGroup):
    """The commands of ``shoal serve``."""

    table: ClassVar[dict[str, Command]] = COMMANDS


app = typer.Typer(cls=ServeGroup, no_args_is_help=True, add_completion=False)


@app.callback()
def serve() -> None:
    """Run one part of the service: what containers run."""
