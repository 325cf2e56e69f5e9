"""Three ways to hand batches of pictures to a Triton: shared memory, tensors in messages, JPEGs in messages.

``memory`` measures the worker's own way with small and with large answers. The figures are in docs/triton.md.
"""
