"""`evaluate`: scores on the test set, and everything that is measured and drawn along with them.

May import `training`, which trains the models of out-of-fold predictions, and what is below it.
"""
