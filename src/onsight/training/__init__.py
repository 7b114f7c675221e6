"""`train`, `resume`, `distill`, `prune` and `learning_curve`: from a spec to a finished run.

May import `checks`, `inference`, `reporting` and what is below them.
"""
