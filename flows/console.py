"""Where the commands print what they found."""

from rich.console import Console

_LOG_WIDTH = 160  # a log has no width of its own, and tables that wrap read badly


def open_console() -> Console:
    """The terminal, or a wide page where the output goes to a file or a pipe."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _LOG_WIDTH
    return console
