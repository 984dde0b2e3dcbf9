"""One module per subcommand: its options, what it prints, and nothing else."""
