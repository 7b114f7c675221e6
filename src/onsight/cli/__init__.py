"""The command line: each command parses, calls one function and prints.

May import every package; nothing imports it.
"""
