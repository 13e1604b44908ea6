"""Excel 97-2003 (xls) to text."""

from __future__ import annotations

import io
from typing import Any

import xlrd  # type: ignore[import-untyped]

from embedding.errors import RejectedRecord
from embedding.parsers.bounds import bounded
from embedding.parsers.parsed import Limits, TextBuilder, table_lines
from embedding.parsers.xlsx import shown


def parse_xls(data: bytes, out: TextBuilder, limits: Limits) -> None:
    """Write a workbook as ``parse_xlsx`` does. Raises RejectedRecord for an encrypted file."""
    try:
        book = xlrd.open_workbook(file_contents=data, logfile=io.StringIO(), on_demand=True)
    except xlrd.XLRDError as error:
        if "encrypted" in str(error):
            raise RejectedRecord("encrypted_office", "needs a password") from None
        raise
    for sheet in book.sheets():
        out.mark({"sheet": sheet.name})
        rows = ([shown(_value(cell, book.datemode)) for cell in sheet.row(n)] for n in range(sheet.nrows))
        out.lines(table_lines(bounded(rows, limits)))
    out.meta["sheets"] = book.sheet_names()


def _value(cell: Any, datemode: int) -> object:
    if cell.ctype == xlrd.XL_CELL_DATE:
        try:
            return xlrd.xldate_as_datetime(cell.value, datemode)
        except (ValueError, OverflowError):
            return cell.value
    if cell.ctype == xlrd.XL_CELL_BOOLEAN:
        return bool(cell.value)
    return None if cell.ctype == xlrd.XL_CELL_ERROR else cell.value
