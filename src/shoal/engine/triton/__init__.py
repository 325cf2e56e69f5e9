"""The engine that is a Triton, reached through shared memory.

May use: engine, errors, modelconfig, runtime, triton.
"""
