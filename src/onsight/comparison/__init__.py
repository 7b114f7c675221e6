"""`compare`: which of several evaluated runs is better on the same images, with tests, intervals and a page.

May import `checks`, `inference`, `reporting` and what is below them. Imports no Keras.
"""
