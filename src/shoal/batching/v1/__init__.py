"""Generated from proto/shoal/batching/v1 by ``make proto``.

May use: nothing.
"""
