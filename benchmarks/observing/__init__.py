"""A service under load, watched by a real Prometheus, and its dashboards drawn from what that saw: docs/metrics.md."""
