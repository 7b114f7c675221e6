"""Answers of a finished run: LiteRT and Keras engines, prediction, test-time augmentation, heat maps, parity.

May import `runs` and what is below it.
"""
