"""When requests come: Poisson, in bursts, by the hour, or as a trace says. Of a load test and of the simulator.

Times are seconds from 0, in order. No clock; the same source of chance gives the same times.

May use: errors.
"""
