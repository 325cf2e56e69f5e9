"""Generated from proto/shoal/v1 by ``make proto``.

May use: batching/v1.
"""
