"""The command line: ``rirf COMMAND ...``.

One module a built-in command; other packages add theirs through the entry-point group
``rirf.commands``, each an object of :class:`Command`. Knows how to talk to a person, not how
anything is done.
"""

from rirf.cli.app import main
from rirf.cli.command import Command

__all__ = ["Command", "main"]
