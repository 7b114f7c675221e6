"""Limits that several packages check: of image sizes, classes and class names."""

SMALLEST_SIZE, LARGEST_SIZE = 8, 1024  # pixels per side of the images that a network takes
MAX_CLASSES = 10_000
MAX_CLASS_NAME = 128  # characters
