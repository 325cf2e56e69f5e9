"""From a model's outputs to an answer, a head a task.

May use: errors, modelconfig, modelstore, pictures, runtime, v1.
"""
