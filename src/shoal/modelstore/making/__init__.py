"""Making a model's folder out of somebody's file.

May use: engine/triton, errors, modelconfig, modelstore, runtime, service.
"""
