"""What a picture is: its name in the store, its header, its pixels, a mask of them.

May use: errors, modelconfig, runtime, service.
"""
