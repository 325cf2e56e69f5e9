"""The ``kubernetes`` section of the service file: what the chart takes."""
