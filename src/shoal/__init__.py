"""Shoal: image inference that batches references before the load balancer."""

__version__ = "0.1.0"
