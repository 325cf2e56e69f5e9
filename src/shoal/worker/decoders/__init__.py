"""Decoding in processes of their own: a pool of them, the process that starts them, and what it says.

May use: errors, observe, pictures, runtime.
"""
