"""What it costs to read a model's outputs: the figures of docs/tasks.md."""
