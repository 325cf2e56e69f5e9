"""How many batches in flight a GPU and a CPU take: ResNet-152 behind Triton, beside the ceiling without a server.

The networks run in the lanes of ``benchmarks.gpu``; a CPU's figures come from ``shoal profile``. The figures are in
docs/concurrency.md.
"""
