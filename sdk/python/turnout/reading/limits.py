"""Limits that more than one part goes by."""

SCAN_ROWS_MAX = 100_000_000
"""Most rows of a scan."""

READ_S_MAX = 120.0
"""Longest read, in seconds: a front lets no statement of a read go on for longer, whatever deadline its caller gave.

So once a front has ceased to answer by a route, it asks nothing of that route's tables after this time, and holds none
of them: a scan whose caller is slow to take its rows is ended then.
"""
