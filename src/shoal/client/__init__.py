"""The Python client: upload, asynchronous calls, many at a time."""
