"""What operators look at: metrics, recording and alert rules, dashboards, and the server that answers ``/metrics``.

May use: errors, runtime.
"""
