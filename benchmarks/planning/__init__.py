"""Scenario #1 planned: 2 models, 10 servers, 20 GPUs. Calculated, with what an H100 was measured to do."""
