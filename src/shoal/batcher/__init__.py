"""The batcher: full batches of references, made in front of the load balancer."""
