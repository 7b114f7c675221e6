"""`check`: finds what is wrong with a data set before training, and writes the keep-list of images worth training on.

May import `runs` and the packages below it. Does not import Keras.
"""
