"""`check`: finds what is wrong with a data set before training, and writes the keep-list of images worth training on.

May import `features` and the packages below it. Only `checks.meaning` imports Keras, in a function.
"""
