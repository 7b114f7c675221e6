"""`serve`: an HTTP server that answers with finished runs, its workers, its page, and what it watches.

May import everything below: inference, runs, display, imaging, core.
"""
