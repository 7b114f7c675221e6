"""`export`: files for other runtimes, each compared with Keras before it is kept.

May import `checks`, `inference`, `reporting` and what is below them. The scripts in `readers/` do not
import Onsight.
"""
