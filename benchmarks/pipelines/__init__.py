"""A pipeline beside a client, and a Triton, that do the same by themselves: detect, cut, classify."""
