"""`evaluate`: scores on the test set, and everything that is measured and drawn beside them.

May import `training` (out-of-fold predictions are trained) and what is below it.
"""
