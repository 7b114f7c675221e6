"""HTML and terminal pieces: SVG charts, page templates, notebook output, progress reporters.

May import `core`, `imaging` and `metrics`; imports none of the classes that it shows.
"""
