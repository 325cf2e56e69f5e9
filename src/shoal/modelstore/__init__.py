"""Model stores: plain Triton model repositories, read by Shoal and by Triton alike.

May use: engine, engine/triton, errors, modelconfig, pictures, runtime, triton.
"""
