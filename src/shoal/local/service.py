"""The life of a local service: prepared, started, ready, drained."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

from shoal.errors import Unavailable
from shoal.local import setup, state
from shoal.local.keeper import State
from shoal.local.plan import Component, Part, Plan, PlanFiles, plan
from shoal.local.process import LocalProcess
from shoal.local.store import keep_retention, store_part
from shoal.local.supervisor import Supervisor
from shoal.local.turnover import keep_small
from shoal.router import certificate
from shoal.runtime import gpus, ports
from shoal.runtime.signals import until_stop
from shoal.runtime.threads import usable_cores
from shoal.service import worker_report

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine
    from collections.abc import Set as AbstractSet

    from shoal.runtime.endpoint import Endpoint
    from shoal.service.home import Home
    from shoal.service.spec import Service


async def run(
    service: Service, home: Home, *, say: Callable[[str], None], on_ready: Callable[[state.ServiceState], None]
) -> None:
    """Runs ``service`` until SIGINT or SIGTERM, then drains it; a second signal ends it at once.

    Call ``setup.prepare`` before, and hold ``state.exclusive`` meanwhile.

    Args:
        service: what to run.
        home: where its state lives.
        say: told what the user should know.
        on_ready: called once every part is ready.

    Raises:
        ShoalError: a part didn't become ready; nothing is left running.
    """
    service = _with_console(service)
    layout = _lay_out(service, home)
    supervisor = Supervisor(
        layout.parts,
        lambda part: LocalProcess.start(part, home.logs),
        changed=lambda: _snapshot(service, home, layout, supervisor).save(home),
        say=say,
    )
    stop = asyncio.Event()
    _on_signals(stop, supervisor, say)
    logs = asyncio.create_task(keep_small(home.logs), name="logs")
    try:
        if await _unless(stop, supervisor.start(partial(_tell_of_models, home, layout, say))):
            _publish(service, home, layout)
            async with _retention(service, home, layout):
                on_ready(_snapshot(service, home, layout, supervisor))
                await stop.wait()
    finally:
        await supervisor.stop()
        await _cancelled(logs)


def _lay_out(service: Service, home: Home) -> Plan:
    def store(listen: Endpoint) -> Part:
        return store_part(listen, home.objects, setup.store_credentials(service, home))

    files = PlanFiles.of(home)
    worker_report.remove_all(home)
    layout = plan(service, home, files, ports.FreePorts(), store, usable_cores(), gpus.usable())
    files.service.write_text(service.model_dump_json(indent=2, exclude_defaults=True))  # YAML contains JSON
    layout.topology.save(files.topology)
    return layout


def _with_console(service: Service) -> Service:
    """On one machine there is a console unless the service file says no."""
    router = service.router.model_copy(update={"console": service.router.console is not False})
    return service.model_copy(update={"router": router})


def _console(target: str) -> str:
    return f"{target if '://' in target else f'http://{target}'}/"


def _on_signals(stop: asyncio.Event, supervisor: Supervisor, say: Callable[[str], None]) -> None:
    def handle() -> None:
        if stop.is_set():
            say("ended without waiting for what was in flight")
            supervisor.kill()
        else:
            say("draining; a second signal ends everything at once")
            stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, handle)


async def _unless(stop: asyncio.Event, work: Coroutine[None, None, None]) -> bool:
    """Whether ``work`` was done before ``stop``; else it was cancelled."""
    working = asyncio.ensure_future(work)
    try:
        await until_stop(stop, working)
        if working.done():
            working.result()
            return True
        return False
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


def _tell_of_models(home: Home, layout: Plan, say: Callable[[str], None], components: AbstractSet[Component]) -> None:
    """Says which models aren't served, and why, once the workers know.

    Raises:
        Unavailable: none is, though some are meant to be.
    """
    workers = [part for part in layout.parts if part.component is Component.WORKER and part.component in components]
    reports = {part.name: worker_report.WorkerReport.load(home, part.listen) for part in workers}
    named: dict[str, list[str]] = {}
    for name, report in reports.items():
        for reason in report.reasons:
            named.setdefault(reason, []).append(name)  # the processes of one Triton have one reason
    lines = [f"{', '.join(names)}: {reason}" for reason, names in named.items()]
    if lines and not any(report.models for report in reports.values()):
        raise Unavailable("\n".join(["no model is served", *lines]))
    for line in lines:
        say(line)


def _publish(service: Service, home: Home, layout: Plan) -> None:
    """Tells the commands on this machine where to call, and with which key."""
    tls = service.router.tls
    # A self-made certificate vouches for itself.
    authority = certificate.CertificateFiles.of(tls).certificate if tls else None
    state.save_client(home, layout.target, setup.local_key(service, home).key, authority)


@asynccontextmanager
async def _retention(service: Service, home: Home, layout: Plan) -> AsyncGenerator[None]:
    if layout.store_url is None:
        yield
        return
    credentials = setup.store_credentials(service, home)
    task = asyncio.create_task(keep_retention(service.object_store, layout.store_url, credentials), name="retention")
    try:
        yield
    finally:
        await _cancelled(task)


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def _snapshot(service: Service, home: Home, layout: Plan, supervisor: Supervisor) -> state.ServiceState:
    return state.ServiceState(
        pid=os.getpid(),
        target=layout.target,
        console=_console(layout.target) if service.router.console else None,
        store_url=layout.store_url,
        models=str(home.model_store(service)),
        logs=str(home.logs),
        ready=all(keeper.state is State.READY for keeper in supervisor.keepers),
        parts=tuple(
            state.PartState(
                name=keeper.part.name,
                role=keeper.part.component,
                state=keeper.state,
                pid=keeper.pid,
                restarts=keeper.restarts,
                listen=str(keeper.part.listen),
                metrics=keeper.part.metrics,
                group=keeper.part.group,
                log=str(home.logs / f"{keeper.part.name}.log"),
            )
            for keeper in supervisor.keepers
        ),
    )
