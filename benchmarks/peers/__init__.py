"""Shoal beside other servers: the same pictures, the same model file, the same two cores."""
