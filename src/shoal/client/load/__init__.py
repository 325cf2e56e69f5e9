"""Load for a running service, and what came of it.

May use: arrivals, client, errors, modelconfig, runtime.
"""
