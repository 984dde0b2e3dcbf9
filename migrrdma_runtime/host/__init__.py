"""The host as the command line sees it: what is installed on it, and what is wrong with it.

This floor holds what its two rooms share; they may use it, engine, wire, base, and parts of the agent.
"""
