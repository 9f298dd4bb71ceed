"""What a person looks at: the table in the terminal, the plots and pictures, and the page with all of them."""

from __future__ import annotations

from pathlib import Path

from medssl_jax.report.page import main_tables, write_page
from medssl_jax.report.pictures import guided, outlines, overlays, places, triplets
from medssl_jax.report.rising import still_rising
from medssl_jax.report.rundir import read_run
from medssl_jax.report.tables import one_sided, summarise, to_markdown, to_text

__all__ = [
    "guided",
    "main_tables",
    "outlines",
    "overlays",
    "places",
    "read_run",
    "summarise",
    "to_markdown",
    "to_text",
    "triplets",
    "write_page",
    "write_report",
]


def write_report(workdir: Path | str) -> str:
    """Draw the plots of a run, write its report.html, and return the table for the terminal.

    Args:
      workdir: a run directory; whatever is missing in it is missing in the report.

    Raises:
      UserError: there is no such directory.
    """
    write_page(workdir)
    run = read_run(workdir)
    said = [*map(to_text, main_tables(run.rows)), *one_sided(run.rows), *still_rising(run.cells)]
    return "\n\n".join(said) or "No fine-tuning results yet: nothing to compare."
