"""Models in a bucket: pushed, pulled, and kept in step with."""
