"""Model stores: plain Triton model repositories, read by Shoal and by Triton alike."""
