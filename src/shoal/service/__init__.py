"""What a service is: its file, its addresses, its home on disk, its keys, who calls, and what workers report.

May use: errors, runtime.
"""
