"""report.html, the verdict and plots, from the files of a run alone.

May import `runs` and what is below it. Imports no Keras.
"""
