"""``python -m migrrdma_runtime`` is ``migrrdma``."""

from migrrdma_runtime.cli import main

main()
