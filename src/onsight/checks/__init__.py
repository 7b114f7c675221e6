"""`check`: what is wrong with a data set before training, and the keep-list of images worth training on.

May import `runs` and what is below it. Imports no Keras.
"""
