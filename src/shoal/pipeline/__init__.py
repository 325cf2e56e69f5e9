"""What runs a pipeline: a detector, and models that look closer at each of its boxes, asked through their batchers.

May use: batcher, batching, batching/v1, client, errors, modelconfig, observe, runtime, service, v1, worker.
"""
