"""The batcher: full batches of references, made in front of the load balancer.

A request's way: a door (``envoy_door``, inside Envoy, or ``grpcio_door``) → core → dispatch → model_queue →
batch_stream. ``policy`` decides when a batch closes; it has no I/O and no clock. ``queue_streams`` opens and closes the
streams of a queue.

May use: batching, batching/v1, errors, explain, modelconfig, observe, runtime, service.
"""
