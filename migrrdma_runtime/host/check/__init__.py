"""``migrrdma check``: what a host needs, examined one by one.

A check is a function of the machine that returns a result; ``table.py`` lists them in the order in which one
would repair them.
"""
