"""``python -m migrrdma_runtime.agent``: what systemd starts. ``migrrdma agent run`` without the command line."""

import os
import sys

from migrrdma_runtime.agent import process

sys.exit(process.main(os.environ.get("MIGRRDMA_LOG", "info"), os.environ.get("MIGRRDMA_LOG_FORMAT", "text")))
