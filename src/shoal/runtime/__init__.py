"""What every process needs, and nothing of Shoal: loops and signals, files, ports, gRPC, Envoy as a program.

May use: errors.
"""
