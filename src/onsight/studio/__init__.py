"""`studio`: a page that shows the runs of a folder while they train. It only reads.

May import `serving` and the packages below it.
"""
