"""From a model's outputs to an answer, a head a task.

May use: batching, errors, modelconfig, modelstore, pictures, v1.
"""
