"""One module per subcommand: its options, what it prints, and nothing else.

It uses host.install, host.check, host, agent, agent.observe, agent.peers, inspection, engine, criu, wire, base,
typer and rich.
"""
