"""A run folder: its paths, its files and how they are read, and the images that it was trained on.

May import `spec`, `data` and the packages below them.
"""
