"""The command ``report``: a run as one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from embedding.errors import ResourceError
from jobs.bodies.answers import ReportBody
from jobs.run_details import keep_page
from jobs.run_page.data import page_data
from jobs.run_page.html import page

if TYPE_CHECKING:
    from jobs.pipeline import Pipeline


def keep_own_page(pipeline: Pipeline, run_id: str) -> None:
    """Keep the page of a run in the state, in place of one of an earlier step. Raises as ``write_page`` does."""
    keep_page(pipeline.state.root, run_id, page(page_data(pipeline, run_id)))


def write_page(pipeline: Pipeline, run_id: str, out: Path | None) -> ReportBody:
    """Write the page of a run, of the newest `run` without a ``run_id``, to ``out`` or to a file of its name here.

    Raises ConfigError for a run that is not known, ResourceError where the file cannot be written.
    """
    data = page_data(pipeline, run_id)
    file = out or Path(f"embedmill-{data.report.run_id}.html")
    text = page(data)
    try:
        file.touch(mode=0o600)
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ResourceError(f"--out: {file} cannot be written: {error.strerror}") from None
    return ReportBody(run_id=data.report.run_id, file=str(file), command=data.report.command)
