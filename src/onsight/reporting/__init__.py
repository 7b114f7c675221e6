"""report.html, MODEL_CARD.md, the verdict, plots, and `log` to trackers, from the files of a run alone.

May import `runs` and the packages below it. Does not import Keras.
"""
