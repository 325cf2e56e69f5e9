"""The configuration with which Triton loads a model for Shoal: that of its config.pbtxt, but for who waits.

Batches are formed before the load balancer, by ``dynamic_batching`` of the same config.pbtxt. Were Triton to follow it
as well, a batch that isn't full would wait a second time. So there it waits for nothing, and takes the time-out that
comes with a request. What the service file says otherwise than the model goes in too. The original travels along, as a
parameter, so that who asks the server later finds what the model's owner wrote.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf import json_format

from shoal.modelconfig import pbtxt

if TYPE_CHECKING:
    from shoal.modelconfig.batching import BatchingSettings

_ORIGINAL = "shoal.steered_from"
_MARK = "shoal.loaded_as"


def steered(config: Any, batching: BatchingSettings, mark: str = "") -> str:  # tritonclient ships no types
    """JSON for ``TritonClient.load``.

    Args:
        config: The model's ``inference.ModelConfig``.
        batching: What is to hold: ``max_batch_size`` and ``instance_count`` may differ from ``config``.
        mark: Travels along, for ``mark_of``: tells whoever asks whether just this was loaded.
    """
    ours = type(config)()
    ours.CopyFrom(config)
    ours.max_batch_size = batching.max_batch_size
    for sample in ours.model_warmup:
        sample.batch_size = min(sample.batch_size, batching.max_batch_size)
    if pbtxt.instances(config) != batching.instance_count:
        pbtxt.set_instances(ours, batching.instance_count)
    if config.WhichOneof("scheduling_choice") == "dynamic_batching":
        ours.dynamic_batching.max_queue_delay_microseconds = 0
        del ours.dynamic_batching.preferred_batch_size[:]
        ours.dynamic_batching.default_queue_policy.allow_timeout_override = True
    ours.parameters[_ORIGINAL].string_value = pbtxt.to_json(config)
    if mark:
        ours.parameters[_MARK].string_value = mark
    return pbtxt.to_json(ours)


def mark_of(config: Any) -> str:  # protobuf messages
    """What ``steered`` was given when a running model was loaded; empty: nothing, or it wasn't."""
    return str(config.parameters[_MARK].string_value) if _MARK in config.parameters else ""


def original(config: Any) -> Any:  # protobuf messages
    """What ``config`` was before ``steered``; itself if it never was."""
    if _ORIGINAL not in config.parameters:
        return config
    return json_format.Parse(config.parameters[_ORIGINAL].string_value, type(config)())
