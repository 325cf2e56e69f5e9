"""The simulator held against a running service: both get the same arrivals.

What requests cost is found by other calls than those: callers who wait for each other's answers, few and many.

May use: client, client/load, errors, modelconfig, simulate.
"""
