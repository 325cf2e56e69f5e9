"""The GPU runner: ``shoal model add --runner gpu`` copies the other files of this folder beside a model.

``model.py`` is what Triton's Python backend starts, with its own Python, in which there is no Shoal. With them goes
``encoded_rows.py`` of ``engine/triton``.

May use: nothing.
"""
