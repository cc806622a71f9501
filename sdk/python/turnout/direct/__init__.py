"""Direct mode: a client that reads PostgreSQL itself, as a query front does, with no hop in between.

It is a front to the switcher: it watches the routes, holds a reader lease, prepares for what is proposed, and a cutover
waits for it. All of that is `turnout.reading`; this package turns its values into results. Needs turnout[direct].
"""
