"""A network on a GPU, with a lane for each batch in flight: served by Triton (``lanes``), and without one (``raw``).

The chapters ``concurrency`` and ``transport`` measure it.
"""
