"""What a picture costs, beside the ceiling: a process that does nothing but decode and run the model.

Images a second and CPU time by component (``end_to_end``), time to start, CPU while idle and memory (``footprint``),
and what bf16 gains (``precision``). The figures are in docs/performance.md.
"""
