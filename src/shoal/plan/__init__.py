"""How many GPUs some models need, which models share them, and why: the answer is simulated before it is given.

``document`` is the file with models, load and hardware; ``costs`` what batches take; ``bound`` the arithmetic that no
placement can beat; ``placements`` what is compared; ``trial`` the simulation of one; ``search`` the least GPUs of each.

May use: arrivals, client/report, errors, modelconfig, runtime, service, simulate.
"""
