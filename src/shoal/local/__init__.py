"""The local service: what ``shoal up`` starts and keeps."""
