"""Limits that several packages share: of image sizes, classes, class names and features."""

SMALLEST_SIZE, LARGEST_SIZE = 8, 1024  # pixels per side of the images that a network takes
MAX_CLASSES = 10_000
MAX_CLASS_NAME = 128  # characters
MAX_PROTOTYPES = 1024  # of a model that knows how unlike its training images an image is
SHORTEST = 1e-3  # length that features are divided by, at least: those of a plain grey image are almost zero
