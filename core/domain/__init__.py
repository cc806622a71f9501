"""Names, routing and errors that every service shares. Pure: no I/O, no framework."""
