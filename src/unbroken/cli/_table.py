"""Plain columns, for terminals and pipes alike."""

from collections.abc import Sequence

from unbroken.cli._terminal import harmless


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Left-aligned columns, as wide as their widest cell, whatever a provider wrote into it."""
    lines = [tuple(map(harmless, row)) for row in (head, *rows)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
