"""report.html, MODEL_CARD.md, the verdict and plots, from the files of a run alone.

May import `runs` and the packages below it. Does not import Keras.
"""
