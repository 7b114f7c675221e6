"""Images: decoding, geometry, augmentation, corruptions. Takes and returns NumPy arrays of uint8.

May import `core`.
"""
