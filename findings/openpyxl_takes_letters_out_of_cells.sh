#!/usr/bin/env bash
# Versions: openpyxl 3.1.5; the workbook is written by XlsxWriter 3.2.9, as Excel writes it.
# Behaviour: of a workbook's shared strings openpyxl undoes half of Excel's escapes, and undoes what is none. A cell with a
#   carriage return is kept as "_x000D_" in the file and comes back as these seven letters; a cell in which somebody typed
#   the seven letters is kept as "_x005F_x000D_" and comes back as the same seven: two cells that differ in Excel are
#   equal afterwards. And since the letters "x005F_" are taken out wherever they stand, a name like "0x005F_MASK", which
#   is no escape and is written as it is, comes back as "0MASK". Nothing is said in any of the cases.
# Source: openpyxl/reader/strings.py, read_string_table (text.replace('x005F_', '')); its own complete
#   openpyxl.utils.escape.unescape is not called there. ECMA-376 part 1, ST_Xstring, for what the escapes are.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install -q --disable-pip-version-check openpyxl==3.1.5 XlsxWriter==3.2.9 2>/dev/null
cat > "$work/ask.py" <<'PY'
import io
import sys

import openpyxl
import xlsxwriter

cells = ["first\rsecond", "first_x000D_second", "0x005F_MASK"]
file = io.BytesIO()
with xlsxwriter.Workbook(file) as book:
    sheet = book.add_worksheet()
    for number, cell in enumerate(cells):
        sheet.write_string(number, 0, cell)
read = [row[0] for row in openpyxl.load_workbook(file).active.iter_rows(values_only=True)]
for wrote, got in zip(cells, read, strict=True):
    print(f"{wrote!r:24} is read as {got!r}")
sys.exit(read != ["first_x000D_second", "first_x000D_second", "0MASK"])
PY
"$work/env/bin/python" "$work/ask.py"

# Saw, on Python 3.11:
# 'first\rsecond'          is read as 'first_x000D_second'
# 'first_x000D_second'     is read as 'first_x000D_second'
# '0x005F_MASK'            is read as '0MASK'
