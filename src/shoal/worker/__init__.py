"""The worker: fetches and decodes each picture right beside the model."""
