"""``python -m migrrdma_runtime.mover``: what systemd starts."""

import os
import sys

from migrrdma_runtime.mover import process

sys.exit(process.main(os.environ.get("MIGRRDMA_LOG", "info"), os.environ.get("MIGRRDMA_LOG_FORMAT", "text")))
