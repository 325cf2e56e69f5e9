"""What became of one recent request: what parts remember, how they are asked, and what their answers mean together.

May use: errors, observe, pictures, runtime.
"""

PATH = "/requests/"
"""Beside ``/metrics``; a uuid follows."""
RECENT_PATH = "/recent"
"""Beside it at a batcher: requests that were slow or failed, of the keys that ``?key=ID`` names, again for more."""
MODELS_PATH = "/models"
"""Beside it at a worker: the models that it serves, and why not others."""
