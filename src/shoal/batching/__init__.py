"""Batching for any unary gRPC service."""
