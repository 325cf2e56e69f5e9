"""The router: Envoy, configured from the service file."""
