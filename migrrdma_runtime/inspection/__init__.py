"""Looks into a process from outside, when it does not answer: what its guest library says, where its threads are.

It uses base and ptrace. It is never on the normal path, and disturbs nobody: the process's memory is read while it
runs, nothing is attached to and nothing is stopped. So what is read may be changing, and is whatever the process wrote
there: every address, length and number is doubted.
"""
