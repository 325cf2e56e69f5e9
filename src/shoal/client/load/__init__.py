"""Load for a running service, and what came of it.

May use: client, errors, modelconfig, runtime.
"""
