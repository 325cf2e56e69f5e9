"""What a model says of itself: ``config.pbtxt``, tensors, task, batching, and what is wrong with it.

May use: errors, runtime.
"""
