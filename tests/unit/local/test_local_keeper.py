from __future__ import annotations

import asyncio
import os

import pytest

from shoal.errors import ShoalError, Unavailable
from shoal.local.keeper import BackOff, PartKeeper, State
from shoal.local.plan import Component, Part, Protocol
from shoal.local.supervisor import Supervisor
from shoal.runtime.endpoint import Endpoint


def part(name: str, component: Component = Component.WORKER) -> Part:
    return Part(name, component, ("true",), Endpoint("127.0.0.1", 1), Protocol.TCP)


class ScriptedChild:
    """A child that does what the test says; ``journal`` is what happened, in order."""

    def __init__(self, name: str, journal: list[str], failure: ShoalError | None = None) -> None:
        self.pid = os.getpid()
        self.name = name
        self.may_be_ready = asyncio.Event()
        self._journal = journal
        self._failure = failure
        self._ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def ready(self) -> None:
        await self.may_be_ready.wait()
        if self._failure:
            raise self._failure
        self._journal.append(f"{self.name} ready")

    async def wait(self) -> int:
        return await asyncio.shield(self._ended)

    async def stop(self) -> None:
        self._journal.append(f"{self.name} stopped")
        self.end(0)

    def kill(self) -> None:
        self._journal.append(f"{self.name} killed")
        self.end(-9)

    def end(self, code: int) -> None:
        if not self._ended.done():
            self._ended.set_result(code)


class Stage:
    """Launches scripted children and records what keepers do."""

    def __init__(self, *failures: ShoalError | None, held: bool = False) -> None:
        self.journal: list[str] = []
        self.said: list[str] = []
        self.pauses: list[float] = []
        self.children: list[ScriptedChild] = []
        self.launched: asyncio.Queue[ScriptedChild] = asyncio.Queue()
        self._failures = list(failures)
        self._held = held

    async def launch(self, part: Part) -> ScriptedChild:
        self.journal.append(f"{part.name} started")
        child = ScriptedChild(part.name, self.journal, self._failures.pop(0) if self._failures else None)
        if not self._held:
            child.may_be_ready.set()
        self.children.append(child)
        self.launched.put_nowait(child)
        await asyncio.sleep(0)  # starting takes a while: others start meanwhile
        return child

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)

    def keeper(self, name: str = "worker") -> PartKeeper:
        return PartKeeper(part(name), self.launch, changed=lambda: None, say=self.said.append, sleep=self.sleep)

    def supervisor(self, *parts: Part) -> Supervisor:
        return Supervisor(parts, self.launch, changed=lambda: None, say=self.said.append)


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def test_the_pause_doubles_up_to_a_limit() -> None:
    back_off = BackOff(first_seconds=1, longest_seconds=5, good_seconds=60)
    assert [back_off.next(now) for now in (0, 1, 3, 7, 12)] == [1, 2, 4, 5, 5]


def test_the_pause_begins_anew_after_a_good_time() -> None:
    back_off = BackOff(first_seconds=1, longest_seconds=5, good_seconds=60)
    assert [back_off.next(now) for now in (0, 10, 100)] == [1, 2, 1]


async def test_start_returns_once_the_part_is_ready() -> None:
    stage = Stage(held=True)
    keeper = stage.keeper()
    start = asyncio.create_task(keeper.start())
    child = await stage.launched.get()
    await settle()
    assert not start.done()
    assert keeper.state is State.STARTING
    child.may_be_ready.set()
    await start
    assert keeper.state is State.READY
    assert keeper.pid == child.pid
    await keeper.stop()


async def test_a_part_that_ends_is_started_again_and_the_user_is_told() -> None:
    stage = Stage()
    keeper = stage.keeper()
    await keeper.start()
    (await stage.launched.get()).end(-11)
    await stage.launched.get()
    await settle()
    assert keeper.state is State.READY
    assert keeper.restarts == 1
    assert stage.said == ["worker ended with SIGSEGV; starting it again in 0.2 s", "worker is ready again"]
    await keeper.stop()


async def test_a_restart_that_fails_is_tried_again_after_a_longer_pause() -> None:
    stage = Stage(None, Unavailable("still broken"), Unavailable("still broken"), None)
    keeper = stage.keeper()
    await keeper.start()
    stage.children[0].end(1)
    await settle()
    assert keeper.state is State.READY
    assert keeper.restarts == 3
    assert stage.pauses == pytest.approx([0.2, 0.4, 0.8])
    assert stage.journal.count("worker killed") == 2, "nothing of a failed attempt is left"
    await keeper.stop()


async def test_a_part_that_was_never_ready_is_an_error() -> None:
    stage = Stage(Unavailable("no luck"))
    keeper = stage.keeper()
    with pytest.raises(Unavailable, match="no luck"):
        await keeper.start()
    await keeper.stop()
    assert keeper.state is State.STOPPED
    assert stage.journal[-1] == "worker stopped"


async def test_a_stopped_part_stays_stopped() -> None:
    stage = Stage()
    keeper = stage.keeper()
    await keeper.start()
    await keeper.stop()
    await settle()
    assert stage.journal == ["worker started", "worker ready", "worker stopped"]
    assert keeper.pid is None


async def test_stop_ends_the_wait_for_a_restart() -> None:
    stage = Stage()
    forever = asyncio.Event()

    async def sleep(_: float) -> None:
        await forever.wait()

    keeper = PartKeeper(part("worker"), stage.launch, changed=lambda: None, say=stage.said.append, sleep=sleep)
    await keeper.start()
    stage.children[0].end(1)
    await settle()
    assert keeper.state is State.WAITING
    await keeper.stop()
    assert len(stage.children) == 1


SERVICE = (
    part("router", Component.ROUTER),
    part("worker"),
    part("batcher", Component.BATCHER),
    part("store", Component.STORE),
)


async def test_parts_start_from_the_inside_out_and_stop_from_the_outside_in() -> None:
    stage = Stage()
    supervisor = stage.supervisor(*SERVICE)
    await supervisor.start()
    assert stage.journal[:2] == ["store started", "store ready"]
    assert set(stage.journal[2:4]) == {"worker started", "batcher started"}, "they don't wait for each other"
    assert stage.journal[-2:] == ["router started", "router ready"]
    stage.journal.clear()
    await supervisor.stop()
    assert stage.journal == ["router stopped", "batcher stopped", "worker stopped", "store stopped"]


async def test_a_part_that_fails_at_the_start_fails_the_start() -> None:
    stage = Stage(None, Unavailable("worker is broken"))
    supervisor = stage.supervisor(*SERVICE)
    with pytest.raises(Unavailable, match="worker is broken"):
        await supervisor.start()
    assert "router started" not in stage.journal
    await supervisor.stop()
    assert {"worker stopped", "store stopped"} <= set(stage.journal)


async def test_a_start_can_be_given_up() -> None:
    stage = Stage(held=True)
    supervisor = stage.supervisor(*SERVICE)
    start = asyncio.create_task(supervisor.start())
    await stage.launched.get()
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    await supervisor.stop()
    assert stage.journal == ["store started", "store stopped"]


async def test_kill_ends_all_at_once() -> None:
    stage = Stage()
    supervisor = stage.supervisor(*SERVICE)
    await supervisor.start()
    stage.journal.clear()
    supervisor.kill()
    assert len(stage.journal) == len(SERVICE)
    await supervisor.stop()
