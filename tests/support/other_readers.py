"""Other programs' reading of a file: pandoc and pdftotext where they are installed, MarkItDown in an environment of its own.

Run as a script by that environment's Python, it writes MarkItDown's text of each file that is named on its standard input.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MARKITDOWN = ROOT / ".venv-readers" / "bin" / "python"
# What pandoc reads as text; of mail and the like MarkItDown shows the source itself, which says nothing about a reading.
PANDOC = {"docx": "docx", "odt": "odt", "epub": "epub", "rtf": "rtf", "html": "html", "htm": "html"}
MARKITDOWN_KINDS = frozenset(["docx", "pptx", "xlsx", "xls", "pdf", "epub", "html", "htm", "csv", "ipynb"])


def ending(path: Path) -> str:
    return path.suffix.lstrip(".").lower()


def missing() -> list[str]:
    """The readers that are not here."""
    absent = [name for name in ("pandoc", "pdftotext") if shutil.which(name) is None]
    return absent if MARKITDOWN.exists() else [*absent, "markitdown (make readers)"]


def command_line(path: Path) -> list[str] | None:
    """How a program of the system reads a file, or None where none does."""
    if ending(path) == "pdf" and shutil.which("pdftotext"):
        return ["pdftotext", "-enc", "UTF-8", str(path), "-"]
    if ending(path) in PANDOC and shutil.which("pandoc"):
        return ["pandoc", "--sandbox", "-f", PANDOC[ending(path)], "-t", "plain", "--wrap=none", str(path)]
    return None


def read_by_program(path: Path) -> str:
    command = command_line(path)
    if command is None:
        return ""
    try:
        done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        return ""
    return done.stdout.decode("utf-8", "replace")


def start_markitdown(paths: list[Path], into: Path) -> subprocess.Popen[bytes]:
    """Start reading all files in one process, into ``into/NUMBER.txt``."""
    listed = into / "files"
    listed.write_text("\n".join(map(str, paths)))
    with listed.open() as given:
        return subprocess.Popen(
            [str(MARKITDOWN), __file__, str(into)], stdin=given, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )


def _convert(into: Path) -> None:
    from markitdown import MarkItDown

    reader = MarkItDown(enable_plugins=False)
    for number, line in enumerate(sys.stdin.read().splitlines()):
        try:
            text = reader.convert(line).text_content
        except Exception:  # it rejects some files; then there is nothing to compare with
            text = ""
        (into / f"{number}.txt").write_text(text, errors="replace")


if __name__ == "__main__":
    _convert(Path(sys.argv[1]))
