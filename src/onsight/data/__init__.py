"""Data sets: where images come from, their decoded cache, the split, and batches.

May import the packages below: `models`, `display`, `imaging`, `metrics`, `core`. Imports no Keras.
"""
