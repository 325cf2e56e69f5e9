"""Scenario #1 planned, with what an H100 was measured to do; and the simulator held against a real service."""
