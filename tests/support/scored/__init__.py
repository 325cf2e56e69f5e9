"""Scenarios that the real policy plays under virtual time, and what it gets for each: 0 to 100, by four measures.

``score`` has the formulas, ``scenarios`` and ``wide`` what is played, ``floors`` what no change may fall below. The
idea is Gel's, for its connection pool (geldata/gel, tests/test_server_pool.py): no policy is the right one, but one can
get worse.
"""
