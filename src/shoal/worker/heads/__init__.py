"""From a model's outputs to an answer, a head a task."""
