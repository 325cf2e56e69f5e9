"""What the batching service is worth: five experiments with real routers, batchers and batching streams.

The workers' engine is scripted where the engine isn't the question: it takes as long as a measured one would. The
figures are in docs/batching.md. ``dispatcher`` compares the dispatcher's CPU time with another commit's:
docs/explain.md.
"""
