"""``shoal up``: the whole service on this machine."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import typer

from shoal.local import pipelines, setup, state
from shoal.local import service as local_service
from shoal.local.process import rotate
from shoal.local.public_port import with_port
from shoal.modelstore import repository
from shoal.runtime import logs, trust
from shoal.service import spec
from shoal.service.home import Home

if TYPE_CHECKING:
    from shoal.service.spec import Service


def up(
    service: Path | None = typer.Option(
        None, "--service", "-f", help="The service file. Without: the default service."
    ),
    port: int | None = typer.Option(
        None, "--port", envvar="SHOAL_PORT", min=0, max=65535, help="The public port. 0: any that is free."
    ),
    detach: bool = typer.Option(False, "--detach", help="Return once it is ready; it goes on in the background."),
    ready_fd: int | None = typer.Option(None, hidden=True, help="Where to write a byte once it is ready."),
) -> None:
    """Run the whole service on this machine, until Ctrl-C: it then finishes what is in flight and stops."""
    home = Home.default()
    trust.require_ours(home.run)
    wanted = spec.load(service)
    if state.owner(home) is not None:
        raise state.already_running(home)
    if detach:
        _prepare(wanted, home, service)
        _detach(home, _arguments(service, port))
    else:
        _run(wanted, home, service, port, ready_fd)


def _prepare(wanted: Service, home: Home, file: Path | None) -> None:
    setup.prepare(wanted, home, _say)
    pipelines.require_right(wanted, home.model_store(wanted), file)


def _run(wanted: Service, home: Home, file: Path | None, port: int | None, ready_fd: int | None) -> None:
    logs.configure(wanted.observe.log_level)

    def on_ready(ready: state.ServiceState) -> None:
        _print_ready(ready)
        if ready_fd is not None:
            os.write(ready_fd, b"\n")
            os.close(ready_fd)

    with state.exclusive(home):
        wanted = with_port(wanted, port)
        _prepare(wanted, home, file)
        asyncio.run(local_service.run(wanted, home, say=_say, on_ready=on_ready))
    _say("stopped")


def _detach(home: Home, arguments: list[str]) -> None:
    """Starts ``shoal up`` in a session of its own and waits until it is ready or has failed."""
    log = home.logs / "supervisor.log"
    rotate(log)
    reader, writer = os.pipe()
    with log.open("ab") as output:
        begin = output.tell()
        supervisor = subprocess.Popen(
            [sys.executable, "-P", "-m", "shoal", "up", *arguments, "--ready-fd", str(writer)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=(writer,),
            start_new_session=True,
        )
    os.close(writer)
    try:
        ready = os.read(reader, 1)
    except KeyboardInterrupt:
        supervisor.terminate()
        supervisor.wait()
        raise
    found = state.running(home)
    if not ready or found is None:
        typer.echo(log.read_bytes()[begin:].decode(errors="replace").rstrip(), err=True)
        raise typer.Exit(supervisor.wait() or 1)
    _print_ready(found)


def _arguments(service: Path | None, port: int | None) -> list[str]:
    return [
        *(("--service", str(service)) if service else ()),
        *(("--port", str(port)) if port is not None else ()),
    ]


def _print_ready(ready: state.ServiceState) -> None:
    age = time.time() - psutil.Process().create_time()
    models = repository.names(Path(ready.models))
    typer.echo(f"ready in {age:.1f} s: {ready.target}")
    typer.echo(f"  models   {', '.join(models) or 'none'} ({ready.models})")
    for part in ready.parts:
        if part.metrics:
            typer.echo(f"  metrics  {part.metrics} ({part.name})")
    typer.echo(f"  logs     {ready.logs}")
    if ready.console:
        typer.echo(f"  console  {ready.console} (its API key: 'shoal keys local')")
    if setup.FIRST_MODEL in models:
        typer.echo(f"try: shoal classify PICTURE.jpg --model {setup.FIRST_MODEL}")


def _say(text: str) -> None:
    typer.echo(f"shoal: {text}", err=True)
