"""`compare`: finds which of several evaluated runs is better on the same images, with tests, intervals and a page.

May import `checks`, `inference`, `reporting` and the packages below them. Does not import Keras.
"""
