"""The supervisor behind ``shoal up``: every part of the service as real processes on one machine.

plan (what to run) → process (one of them) → keeper (keeps it running) → supervisor (all of them, in order) →
service (the whole life: set up, ready, drained) with state (what ``shoal status`` reads).

May use: errors, modelstore, modelstore/making, observe, pictures, pipeline, router, runtime, service, triton.
"""
