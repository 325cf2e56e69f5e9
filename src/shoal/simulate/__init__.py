"""The service under virtual time: the real policy, permits and turns, and engines that follow measured costs.

``scenario`` says what is simulated and what comes of it, ``service`` simulates it, and ``from_file`` reads one from a
file. No clock; the same seed gives the same result. What it says is a calculation and no measurement.

May use: arrivals, batcher, batching, engine, errors, modelconfig, profile, runtime, service.
"""
