"""What ``migrrdma install`` puts on a host and ``migrrdma uninstall`` takes away: a plan of steps, and a record.

It uses host, agent.roles, agent.peers, engine, base, jsonschema and typer.
"""
