"""The command line `turnout`: parses, asks `turnout.client`, and shows the answer to a person or as JSON."""
