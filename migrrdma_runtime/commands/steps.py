"""How install and uninstall show what they do: a line for each step, or one JSON document at the end."""

from __future__ import annotations

import json
from collections.abc import Iterable

import typer

from migrrdma_runtime.host.install.step import Step


class Report:
    """Prints the steps as they are made."""

    def __init__(self, *, as_json: bool, dry_run: bool) -> None:
        self._as_json = as_json
        self._dry_run = dry_run
        self._steps: list[dict[str, str]] = []
        self._notes: list[str] = []

    def show(self, steps: Iterable[Step]) -> None:
        """Print each step; ``steps`` may be a generator that makes them."""
        for step in steps:
            if step.apply:
                status = "would" if self._dry_run else "done"
            else:
                status = "kept" if step.note else "already"
            self._steps.append({"status": status, "what": step.what, "note": step.note})
            if self._as_json:
                continue
            typer.echo(f"{status:8} {step.what}" + (f" ({step.note})" if step.note else ""))
            if self._dry_run and step.apply and step.preview:
                typer.echo(step.preview, nl=False)

    def note(self, text: str) -> None:
        """Print what the user should know or do next."""
        self._notes.append(text)
        if not self._as_json:
            typer.echo(text)

    def finish(self) -> None:
        """Print the JSON document, if one was asked for."""
        if self._as_json:
            document = {"dry_run": self._dry_run, "steps": self._steps, "notes": self._notes}
            typer.echo(json.dumps(document, indent=2))
