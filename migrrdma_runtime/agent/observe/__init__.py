"""What an operator sees of the agent while it runs: log records for people and programs, and metrics.

It uses agent.roles, base and prometheus_client. Nothing here may fail a migration, and nothing waits for it.
"""
