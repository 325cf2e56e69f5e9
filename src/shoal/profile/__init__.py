"""Profiles of models: one measured at each setting, and the best named.

``records`` is the document. What makes one: ``grid`` says what is measured, ``observer`` when a load is settled and
what it gave, ``measure`` drives a target (``embedded_target``, ``triton_target``), ``choice`` names the best.

May use: engine, engine/triton, errors, modelconfig, pictures, runtime, service, triton.
"""
