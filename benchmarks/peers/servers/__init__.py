"""What runs in the peers' own environments. The path there holds ``src`` and ``benchmarks``; little of either is used."""
