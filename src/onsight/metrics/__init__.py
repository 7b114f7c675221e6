"""Numbers from predictions: scores, calibration, intervals, tests; and predictions.csv, which they derive from.

May import `core`. Imports neither Keras nor a framework.
"""
