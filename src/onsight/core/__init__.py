"""What every package uses, and what knows no image and no run: errors, text, files, threads, backends, progress.

Imports nothing of Onsight.
"""
