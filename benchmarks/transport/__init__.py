"""Three ways to hand batches of pictures to a Triton: shared memory, tensors in messages, JPEGs in messages."""
