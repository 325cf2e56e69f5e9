"""The worker: fetches and decodes each picture right beside the model.

A batch's way: server (streams) → handler → admission (may it be served?) → batch → preparation (``fetch_picture``,
``batch_slot``, ``decoding``) → the engine, a head → results. catalog and sources: which models there are; readiness and
status: whether it is ready.

May use: batching, batching/v1, engine, engine/triton, errors, explain, modelconfig, modelstore,
modelstore/publishing, observe, pictures, runtime, service, triton, v1, worker/decoders, worker/heads.
"""
