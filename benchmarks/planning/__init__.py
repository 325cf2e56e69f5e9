"""Whether what planning calculates is so: the simulator beside real services."""
