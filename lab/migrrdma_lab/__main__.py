"""``python -m migrrdma_lab``: what ``lab/rack`` runs."""

from .cli import main

main()
