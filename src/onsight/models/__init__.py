"""Networks: the registry, the functions that build them, their layers, and the model folder on disk.

May import `core` and `imaging`. Listing the registry does not import Keras.
"""
