"""A real Triton on this machine, without a container.

fetch (the wheel that holds one) → installation (which server to run) → launch (its command, environment and folder) →
running (one that lives as long as a block of code). ``shoal serve triton`` becomes the server; ``shoal up``, tests and
benchmarks start that. The models that a server has are steered over its control API: ``engine/triton``.
"""
