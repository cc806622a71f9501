"""The read path: which version answers a read, and the read of its table.

Whoever reads is a front to the switcher: the query service, which answers others over gRPC, and a client in direct
mode, which answers itself. Both go through this package, so that their answers cannot differ. The rules are pure;
the shell around them is `watch` (routes from the switcher), `keeper` (routes on disk), `table` (PostgreSQL) and
`reads`. Needs asyncpg and mmh3: turnout[direct].
"""
