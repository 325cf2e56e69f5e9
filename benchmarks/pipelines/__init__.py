"""A pipeline beside a client that does the same by itself: detects, cuts, uploads the crops, classifies them."""
