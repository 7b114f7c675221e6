"""Numbers from predictions: scores, calibration, intervals, tests; and predictions.csv, their source.

May import `core`. Imports neither Keras nor a framework.
"""
