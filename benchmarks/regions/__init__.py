"""What regions of pictures cost a worker, and what its picture cache costs pictures that nobody asks about twice."""
