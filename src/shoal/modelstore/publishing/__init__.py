"""Models in a bucket: pushed, pulled, and kept in step with.

May use: errors, modelconfig, modelstore, modelstore/making, observe, pictures, runtime, service, triton.
"""
