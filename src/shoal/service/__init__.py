"""What a service is: its file, its addresses, its home on disk, its keys, and who calls."""
