from __future__ import annotations

import socket
from itertools import count
from pathlib import Path

import pytest

from shoal.errors import ConfigurationError
from shoal.local.plan import START_ORDER, STOP_ORDER, Component, Part, Plan, PlanFiles, Protocol, plan, reachable
from shoal.local.public_port import with_port
from shoal.runtime import ports
from shoal.runtime.endpoint import Endpoint
from shoal.runtime.ports import FreePorts, is_free
from shoal.service.home import Home
from shoal.service.spec import Service, parse

HOME = Home(Path("/home"))
CORES = 8


def lay_out(service: Service, *gpus: str) -> Plan:
    numbers = count(20_000)

    def store(listen: Endpoint) -> Part:
        return Part("store", Component.STORE, ("rclone",), listen, Protocol.TCP, environment={"KEY": "hush"})

    return plan(service, HOME, PlanFiles.of(HOME), lambda: Endpoint("127.0.0.1", next(numbers)), store, CORES, gpus)


def names(layout: Plan, component: Component) -> list[str]:
    return [part.name for part in layout.parts if part.component is component]


def test_the_default_service_is_one_of_each() -> None:
    layout = lay_out(Service())
    assert [part.name for part in layout.parts] == ["store", "worker-default-1", "batcher-shared-1", "router"]
    assert layout.topology.public == Endpoint("127.0.0.1", 8080)
    assert layout.store_url == f"http://{layout.parts[0].listen}"


def test_pools_have_replicas_and_hot_models_have_batchers() -> None:
    layout = lay_out(
        parse("pools: {a: {replicas: 2, models: [x]}, b: {models: ['*']}}\nmodels: {x: {batchers: 2}, y: {}}\n", "s")
    )
    assert names(layout, Component.WORKER) == ["worker-a-1", "worker-a-2", "worker-b-1"]
    assert names(layout, Component.BATCHER) == ["batcher-shared-1", "batcher-x-1", "batcher-x-2"]
    assert {pool: len(workers) for pool, workers in layout.topology.pools.items()} == {"a": 2, "b": 1}
    assert {group: len(each) for group, each in layout.topology.batchers.items()} == {"shared": 1, "x": 2}


TRITONS = "pools: {a: {engine: triton, replicas: 3, models: [x]}, b: {engine: triton, models: ['*']}}\n"


def gpus_of(layout: Plan) -> list[str]:
    commands = [part.command for part in layout.parts if part.component is Component.TRITON]
    return [command[command.index("--gpus") + 1] for command in commands if "--gpus" in command]


def test_tritons_share_several_gpus_in_turn() -> None:
    assert gpus_of(lay_out(parse(TRITONS, "s"), "4", "GPU-5f")) == ["4", "GPU-5f", "4", "GPU-5f"]


@pytest.mark.parametrize("gpus", [(), ("0",)])
def test_without_several_gpus_nothing_is_said_of_them(gpus: tuple[str, ...]) -> None:
    assert gpus_of(lay_out(parse(TRITONS, "s"), *gpus)) == []


def test_workers_of_a_pool_share_the_cores() -> None:
    layout = lay_out(parse("pools: {a: {replicas: 3, models: ['*']}, b: {models: [x]}}", "s"))
    commands = {part.name: part.command for part in layout.parts if part.component is Component.WORKER}
    cores = {name: command[command.index("--cores") + 1] for name, command in commands.items()}
    assert cores == {"worker-a-1": "3", "worker-a-2": "3", "worker-a-3": "3", "worker-b-1": "8"}


def test_every_part_listens_where_the_topology_says() -> None:
    layout = lay_out(Service())
    (worker,) = (part for part in layout.parts if part.component is Component.WORKER)
    (batcher,) = (part for part in layout.parts if part.component is Component.BATCHER)
    assert layout.topology.pools == {"default": [worker.listen]}
    assert layout.topology.batchers == {"shared": [batcher.listen]}
    assert str(layout.topology.balancer) in batcher.command
    taken = [word for part in layout.parts for word in part.command if word.startswith("127.0.0.1:")]
    assert len(set(taken)) == 5, "listen and metrics of the worker; those and the balancer of the batcher"


def test_batchers_log_and_remember_what_the_file_says() -> None:
    layout = lay_out(parse("observe: {log_level: debug, recent_requests: 7}", "s"))
    (batcher,) = (part for part in layout.parts if part.component is Component.BATCHER)
    assert batcher.command[-4:] == ("--recent-requests", "7", "--log-level", "debug")


def test_a_store_elsewhere_is_not_run() -> None:
    layout = lay_out(parse("object_store: {url: 's3://pictures', endpoint: 'http://s3.example'}", "s"))
    assert names(layout, Component.STORE) == []
    assert layout.store_url is None
    assert not any("--store-endpoint" in part.command for part in layout.parts)


def test_secrets_stay_out_of_repr_and_of_commands() -> None:
    layout = lay_out(Service())
    assert "hush" not in repr(layout)
    assert not any("hush" in word for part in layout.parts for word in part.command)


def test_every_role_starts_and_stops_once() -> None:
    assert sorted(component for group in START_ORDER for component in group) == sorted(Component)
    assert sorted(component for group in STOP_ORDER for component in group) == sorted(Component)


def test_a_listener_on_every_address_is_reached_on_loopback() -> None:
    assert reachable(Endpoint("0.0.0.0", 80)) == Endpoint("127.0.0.1", 80)
    assert reachable(Endpoint("::", 80)) == Endpoint("::1", 80)
    assert reachable(Endpoint("10.0.0.1", 80)) == Endpoint("10.0.0.1", 80)


def test_free_ports_differ_and_stay_clear_of_outgoing_connections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = tmp_path / "ip_local_port_range"
    setting.write_text("22000\t60999\n")
    monkeypatch.setattr(ports, "_EPHEMERAL", setting)
    free = FreePorts()
    given = [free() for _ in range(20)]
    assert len(set(given)) == 20
    assert all(endpoint.port < 22_000 and is_free(endpoint) for endpoint in given)


def test_no_two_are_given_the_same_port_before_anybody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    first = FreePorts()()  # as by a process of its own: each knows its own ports alone
    tries = iter([first.port, first.port, *range(20_000, 21_000)])
    monkeypatch.setattr(ports.random, "randint", lambda _low, _high: next(tries))
    assert FreePorts()() != first
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(first)
        server.listen()


def test_a_busy_port_is_an_error_that_says_what_to_change() -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        assert not is_free(Endpoint("127.0.0.1", port))
        with pytest.raises(ConfigurationError, match=rf"127.0.0.1:{port}.*router.port.*--port"):
            with_port(Service(), port)


def test_port_zero_takes_a_free_one() -> None:
    assert is_free(Endpoint("127.0.0.1", with_port(Service(), 0).router.port))


def test_each_worker_has_a_triton_of_its_own() -> None:
    layout = lay_out(
        parse("pools: {a: {engine: triton, replicas: 2, models: [x], triton_server: /opt/t}, b: {models: ['*']}}", "s")
    )
    assert names(layout, Component.TRITON) == ["triton-a-1", "triton-a-2"]
    parts = {part.name: part for part in layout.parts}
    for number in (1, 2):
        triton, worker = parts[f"triton-a-{number}"], parts[f"worker-a-{number}"]
        assert worker.command[-2:] == ("--triton", str(triton.listen))
        assert triton.command[-2:] == ("--server", "/opt/t")
        assert triton.metrics
        assert str(HOME.models) in triton.command
    assert "--triton" not in parts["worker-b-1"].command


def test_the_processes_of_a_worker_share_its_triton() -> None:
    layout = lay_out(
        parse("pools: {a: {engine: triton, replicas: 2, worker_processes: 2, models: [x]}, b: {models: ['*']}}", "s")
    )
    workers = {part.name: part for part in layout.parts if part.component is Component.WORKER}
    tritons = {part.name: str(part.listen) for part in layout.parts if part.component is Component.TRITON}
    assert list(workers) == ["worker-a-1.1", "worker-a-1.2", "worker-a-2.1", "worker-a-2.2", "worker-b-1"]
    assert [part.command[-1] for part in workers.values() if part.group == "a"] == [
        *[tritons["triton-a-1"]] * 2,
        *[tritons["triton-a-2"]] * 2,
    ]
    assert layout.topology.pools["a"] == [part.listen for part in workers.values() if part.group == "a"]
    told = [address for part in workers.values() for address in (str(part.listen), part.metrics)]
    assert len(set(told)) == 10, "each process has a port and a metrics port of its own"


def test_no_two_parts_have_one_name_whatever_pools_are_called() -> None:
    layout = lay_out(
        parse(
            """
            pools:
              a: {engine: triton, replicas: 2, worker_processes: 2, models: [x]}
              a-1: {engine: triton, replicas: 2, models: [y]}
              a-1.1: {replicas: 2, models: [z]}
            """,
            "s",
        )
    )
    found = [part.name for part in layout.parts]
    assert len(set(found)) == len(found)


def test_a_triton_that_is_there_is_not_started() -> None:
    layout = lay_out(parse("pools: {a: {engine: triton, triton_url: 'localhost:8001'}}", "s"))
    assert names(layout, Component.TRITON) == []


def test_workers_believe_no_identity_since_every_local_user_reaches_them() -> None:
    layout = lay_out(parse("pools: {a: {replicas: 2, models: [x]}, b: {models: ['*']}}", "s"))
    workers = [part for part in layout.parts if part.component is Component.WORKER]
    assert all("--verify-identity" in part.command for part in workers)


def test_a_pipeline_has_its_parts_which_start_behind_the_router_and_stop_before_the_batchers() -> None:
    text = "pipelines: {street: {detect: {model: finder}, then: [{model: species}], replicas: 2}}"
    layout = lay_out(parse(text, "s"))
    assert names(layout, Component.PIPELINE) == ["pipeline-street-1", "pipeline-street-2"]
    parts = [part for part in layout.parts if part.component is Component.PIPELINE]
    assert layout.topology.pipelines == {"street": [part.listen for part in parts]}
    for part in parts:
        assert part.command[part.command.index("--name") + 1] == "street"
        assert part.command[part.command.index("--balancer") + 1] == str(layout.topology.balancer)
        assert part.metrics
    started = [index for index, group in enumerate(START_ORDER) if Component.PIPELINE in group]
    assert started > [index for index, group in enumerate(START_ORDER) if Component.ROUTER in group]
    order = [component for group in STOP_ORDER for component in group]
    assert order.index(Component.ROUTER) < order.index(Component.PIPELINE) < order.index(Component.BATCHER)
    assert lay_out(Service()).topology.pipelines == {}
