"""The machine that the command line works on, for the two rooms above: what is installed, and what is wrong.

It uses nothing.
"""
