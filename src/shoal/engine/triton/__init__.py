"""The engine that is a Triton, reached through shared memory."""
