"""Planning: profile a model, then place models on machines, then simulate.

``profile`` is the document that the other steps read. What makes one: ``grid`` says what is measured, ``observer`` when
a load is settled and what it gave, ``measure`` drives a target (``embedded``, ``triton``), ``choice`` names the best.
"""
