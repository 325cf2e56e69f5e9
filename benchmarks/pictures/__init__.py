"""How near to Pillow's the pixels are that a model is fed, and what decoding costs: docs/pictures.md."""
