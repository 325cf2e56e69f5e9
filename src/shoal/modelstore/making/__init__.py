"""Making a model's folder out of somebody's file.

May use: errors, modelconfig, modelstore, runtime, service.
"""
