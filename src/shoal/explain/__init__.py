"""What became of one recent request: what parts remember, how they are asked, and what their answers mean together.

May use: errors, observe, pictures, runtime.
"""

PATH = "/requests/"
"""Beside ``/metrics``; a uuid follows."""
