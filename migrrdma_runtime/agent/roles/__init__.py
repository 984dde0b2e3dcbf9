"""The migration protocol: what the agent does as source, destination and partner, and the records it keeps.

It uses agent.peers, agent.local, wire and base.
"""
