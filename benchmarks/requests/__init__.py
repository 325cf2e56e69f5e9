"""What travels, in bytes: a picture, a tensor, a request and its reply. Figures: docs/data-and-requests.md."""
