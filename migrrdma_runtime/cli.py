"""The command line ``migrrdma``: the subcommands' table, and the one place where errors become exit codes.

0 done; 1 failed, with one line on stderr; 2 used wrongly; 128 + n ended by signal n. Never a stack trace.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import NoReturn

import typer

from migrrdma_runtime import __version__
from migrrdma_runtime.base.errors import MigrRDMAError
from migrrdma_runtime.base.escaping import printable
from migrrdma_runtime.commands import (
    adopt,
    agent,
    check,
    checkpoint_discard,
    checkpoint_import,
    evacuate,
    inspect,
    install,
    migrate,
    migration,
    migration_cancel,
    migration_moves,
    report,
    status,
    timeline,
    uninstall,
)

app = typer.Typer(
    name="migrrdma",
    help="Live migration of containers that hold RDMA connections.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich takes as long to import as everything else that --help needs
    context_settings={"help_option_names": ["-h", "--help"]},
)
checkpoint = typer.Typer(help="Checkpoints that Docker made on another host.", no_args_is_help=True)
agents = typer.Typer(help=agent.GROUP_HELP, no_args_is_help=True)
migrations = typer.Typer(help=migration.GROUP_HELP, no_args_is_help=True)
authority = typer.Typer(help="The cluster's certificate authority.", no_args_is_help=True)

app.command("install", help=install.HELP)(install.install)
app.command("uninstall", help=uninstall.HELP)(uninstall.uninstall)
app.command("check", help=check.HELP)(check.check)
app.command("migrate", help=migrate.HELP)(migrate.migrate)
app.command("evacuate", help=evacuate.HELP)(evacuate.evacuate)
app.command("report", help=report.HELP)(report.report)
app.command("status", help=status.HELP)(status.status)
app.command("inspect", help=inspect.HELP)(inspect.inspect)
app.command("timeline", help=timeline.HELP)(timeline.timeline)
app.add_typer(agents, name="agent")
agents.command("run", help=agent.RUN_HELP)(agent.run)
agents.add_typer(authority, name="ca")
authority.command("init", help=agent.CA_INIT_HELP)(agent.ca_init)
authority.command("issue", help=agent.CA_ISSUE_HELP)(agent.ca_issue)
authority.command("request", help=agent.CA_REQUEST_HELP)(agent.ca_request)
authority.command("renew", help=agent.CA_RENEW_HELP)(agent.ca_renew)
authority.command("revoke", help=agent.CA_REVOKE_HELP)(agent.ca_revoke)
authority.command("list", help=agent.CA_LIST_HELP)(agent.ca_list)
app.add_typer(checkpoint, name="checkpoint")
checkpoint.command("import", help=checkpoint_import.HELP)(checkpoint_import.checkpoint_import)
checkpoint.command("discard", help=checkpoint_discard.HELP)(checkpoint_discard.checkpoint_discard)
app.add_typer(migrations, name="migration")
migrations.command("list", help=migration.LIST_HELP)(migration.list_)
migrations.command("show", help=migration.SHOW_HELP)(migration.show)
migrations.command("moves", help=migration_moves.HELP)(migration_moves.moves)
migrations.command("cancel", help=migration_cancel.HELP)(migration_cancel.cancel)
migrations.command("adopt", help=adopt.HELP)(adopt.adopt)
migrations.command("abandon", help=migration.ABANDON_HELP)(migration.abandon)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"migrrdma {__version__}")
        raise typer.Exit


_VERSION = typer.Option(
    False, "--version", callback=_print_version, is_eager=True, help="Show the version and exit."
)


@app.callback()
def _app(version: bool = _VERSION) -> None:
    """Hold the options that come before a subcommand."""


def main() -> NoReturn:
    """Run the command line and exit."""
    for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(one, _leave)
    try:
        status = _run()
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output has seen enough. Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 128 + signal.SIGPIPE
    sys.exit(status)


def _run() -> int | str | None:
    try:
        app(prog_name="migrrdma")
    except SystemExit as end:
        return end.code
    except MigrRDMAError as error:
        print(f"migrrdma: error: {printable(str(error))}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        raise
    except OSError as error:  # a file that vanished under our hands: the system's words name it
        print(f"migrrdma: error: {printable(str(error))}", file=sys.stderr)
        return 1
    return 0


def _leave(number: int, _frame: FrameType | None) -> NoReturn:
    # Unlike KeyboardInterrupt, SystemExit passes through typer as it is, and what is half done cleans up.
    raise SystemExit(128 + number)
