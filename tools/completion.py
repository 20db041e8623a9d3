"""`quelmdb completion`: what has a shell complete commands, options, stores and workers."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")


@click.command("completion")
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Prints a script that completes commands.

    It has the shell complete commands, their options, directories, and the workers of a
    store.

    \b
    Example:
      quelmdb completion bash > ~/.local/share/bash-completion/completions/quelmdb
      quelmdb completion fish > ~/.config/fish/completions/quelmdb.fish
      echo 'source <(quelmdb completion zsh)' >> ~/.zshrc    # behind compinit
    """
    maker = get_completion_class(shell)
    assert maker is not None
    root = context.find_root().command
    click.echo(maker(root, {}, "quelmdb", "_QUELMDB_COMPLETE").source())
