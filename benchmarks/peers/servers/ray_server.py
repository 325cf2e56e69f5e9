"""Ray Serve: starts a cluster of this one machine, and the replicas."""

import threading
from typing import Any

import ray
from ray import serve

from benchmarks.peers.servers.plan import Plan
from benchmarks.peers.servers.ray_replica import Classifier

_CALLERS = 1000
"""More than there are: no caller is to be turned away."""


def main() -> None:
    """Serves until SIGTERM."""
    plan = Plan.read()
    choice = plan.choice
    ray.init(
        num_cpus=choice.processes + 2,
        include_dashboard=False,
        object_store_memory=256 * 2**20,
        _temp_dir=plan.scratch,
        _node_ip_address="127.0.0.1",
        log_to_driver=True,
    )
    serve.start(http_options={"host": "127.0.0.1", "port": plan.port, "access_log": False})
    deployment: Any = Classifier  # the decorator made it one
    serve.run(
        deployment.options(
            num_replicas=choice.processes,
            max_ongoing_requests=_CALLERS,
            ray_actor_options={"num_cpus": 1},
            logging_config={"enable_access_log": False, "log_level": "WARNING"},
        ).bind()
    )
    # Ray's own handler of SIGTERM ends this. Not Serve's orderly shutdown: it takes longer than the warden waits.
    threading.Event().wait()


if __name__ == "__main__":
    main()
