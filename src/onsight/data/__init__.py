"""Data sets: the sources of images, the cache of decoded images, the split, and batches.

May import the packages below: `models`, `display`, `imaging`, `metrics`, `core`. Imports no Keras.
"""
