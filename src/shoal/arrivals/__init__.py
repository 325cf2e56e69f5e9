"""When requests come: Poisson, in bursts, by the hour, or as a trace says. Of a load test and of the simulator.

May use: nothing.
"""
