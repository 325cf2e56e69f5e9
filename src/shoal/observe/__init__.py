"""What operators look at: metrics, recording and alert rules, dashboards, spans, and the server of ``/metrics``.

May use: errors, runtime.
"""
