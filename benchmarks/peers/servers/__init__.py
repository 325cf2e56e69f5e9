"""What runs in the peers' own environments, with ``src`` and ``benchmarks`` on the path; little of either is used."""
