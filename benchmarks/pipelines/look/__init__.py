"""What Triton's Python backend runs: see ``model.py``."""
