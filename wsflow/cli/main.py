"""The group of commands: each loads when it is called, and errors are one line with an exit code."""

from __future__ import annotations

import errno
import importlib
import os
import signal
import warnings
from typing import Any

import click

from wsflow import __version__
from wsflow.cli.errors import INTERRUPTED, UNFORESEEN, USAGE, CommandError, without_terminal
from wsflow.cli.wording import did_you_mean, in_own_words
from wsflow.exceptions import NumericalError, OutputError, WsflowError

# name -> where the command lives, and what the list of commands says about it
COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("wsflow.cli.demo", "Train, align, fit, sample and evaluate, end to end."),
    "populate": ("wsflow.cli.populate", "Train a population of networks on a task."),
    "import": ("wsflow.cli.import_", "Make a population of network files of other tools."),
    "check": ("wsflow.cli.check", "Find the symmetries of a network, and prove them."),
    "fit": ("wsflow.cli.fit", "Learn the distribution of a population."),
    "sample": ("wsflow.cli.sample", "Draw new networks from a fitted model."),
    "score": ("wsflow.cli.score", "Log-densities of networks under a fitted model."),
    "predict": ("wsflow.cli.predict", "What networks are like, predicted from their weights."),
    "encode": ("wsflow.cli.encode", "Networks as latents that no symmetry changes, and back."),
    "evaluate": ("wsflow.cli.evaluate", "Compare networks with training networks and nulls."),
    "align": ("wsflow.cli.align", "Permute neurons so that networks lie close together."),
    "canonicalize": ("wsflow.cli.canonicalize", "Bring networks to one of all scalings and signs."),
    "barrier": ("wsflow.cli.barrier", "Loss barriers between networks."),
    "merge": ("wsflow.cli.merge", "Merge networks into one."),
    "plot": ("wsflow.cli.plot", "Figures: maps, paths, barriers, training, quality."),
    "shard": ("wsflow.cli.shard", "Split a population into shards, or join them."),
    "card": ("wsflow.cli.card", "Describe a model or networks for those who get them."),
    "info": ("wsflow.cli.info", "What is in a file."),
    "doctor": ("wsflow.cli.doctor", "Whether this machine has what wsflow needs."),
}


class Commands(click.Group):
    """A group that imports a command only when it is called, and turns every error into a `CommandError`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List the commands, in the order of the work."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command of that name."""
        if cmd_name not in COMMANDS:
            return None
        home = COMMANDS[cmd_name][0]
        # a command is called as its file is: "import" cannot be the name of either
        command: click.Command = getattr(importlib.import_module(home), home.rpartition(".")[2])
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or say which was probably meant."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            raise click.UsageError(f"There is no command {args[0]!r}.{did_you_mean(args[0], list(COMMANDS))}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def _worded(self, ctx: click.Context, error: Exception) -> str:
        name = ctx.invoked_subcommand
        return in_own_words(str(error), self.get_command(ctx, name) if name else None)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; with --debug, errors keep their tracebacks."""
        if ctx.params.get("debug"):
            return super().invoke(ctx)
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise CommandError("interrupted.", INTERRUPTED) from None
        except WsflowError as error:
            raise CommandError(self._worded(ctx, error), error.exit_code) from error
        except ValueError as error:
            raise CommandError(self._worded(ctx, error), USAGE) from error
        except (MemoryError, RuntimeError) as error:
            # torch says so when it runs out of memory; click's own ways to end a command pass through
            if isinstance(error, click.exceptions.Exit | click.Abort):
                raise
            raise CommandError(self._worded(ctx, error) or type(error).__name__, NumericalError.exit_code) from error
        except OSError as error:
            # a closed pipe is click's to end quietly
            if error.errno == errno.EPIPE:
                raise
            raise CommandError(str(error), OutputError.exit_code) from error
        except click.UsageError as error:
            command = error.ctx.command_path if error.ctx else "wsflow"
            raise CommandError(f"{error.format_message()} See {command} --help.", USAGE) from error
        except click.ClickException:
            raise
        except Exception as error:
            raise CommandError(
                f"{type(error).__name__}: {error}. Show where with wsflow --debug.", UNFORESEEN
            ) from error


def _warn(message: Warning | str, *args: Any, **kwargs: Any) -> None:
    ctx = click.get_current_context(silent=True)
    words = in_own_words(" ".join(str(message).split()), ctx.command if ctx else None)
    with without_terminal():
        click.echo(f"Warning: {words}", err=True)


def _interrupt_at(ending: signal.Signals, ctx: click.Context) -> None:
    """Let a signal end the command as Ctrl-C does, unless it is ignored, as nohup has it."""
    before = signal.getsignal(ending)
    if before is not signal.SIG_IGN:
        signal.signal(ending, _interrupt)
        ctx.call_on_close(lambda: signal.signal(ending, before))


def _interrupt(signum: int, frame: Any) -> None:
    if signum == signal.SIGHUP:
        # a closed terminal and its shell say it once each; the second must not stop the files of the first
        signal.signal(signum, signal.SIG_IGN)
    raise KeyboardInterrupt


@click.group("wsflow", cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(__version__)
@click.option("--debug", is_flag=True, help="Show a traceback where there is an error.")
@click.option("--threads", type=click.IntRange(1), help="Threads of torch (default: OMP_NUM_THREADS, or else 1).")
@click.pass_context
def main(ctx: click.Context, debug: bool, threads: int | None) -> None:
    """Scikit-learn for neural-network weights: from trained networks to new ones.

    \b
    Example:
      wsflow populate breast_cancer -n 500 -o zoo.safetensors
      wsflow fit zoo.safetensors -o model.st
      wsflow sample model.st -n 100 -o new.safetensors
      wsflow evaluate new.safetensors --train zoo.safetensors
    """
    # many small tensor operations: on a busy machine several threads wait for each other far longer than they
    # work (ten times the time of one thread); torch reads this when a command loads it
    os.environ["OMP_NUM_THREADS"] = str(threads or os.environ.get("OMP_NUM_THREADS", 1))
    ctx.with_resource(warnings.catch_warnings())
    warnings.showwarning = _warn
    for ending in (signal.SIGTERM, signal.SIGHUP):
        _interrupt_at(ending, ctx)
