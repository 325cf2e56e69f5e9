"""Shoal beside mosec, LitServe, Ray Serve and Triton: the same pictures, model, cores and load, in turns.

Each peer has a module here (environment, choices and the pages they follow) and a server file in ``servers``, which
runs in that environment. The figures are in docs/how-it-compares.md.
"""
