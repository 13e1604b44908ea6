#!/usr/bin/env bash
# Versions: pypdfium2 5.15.2 (PDFium as it comes with it).
# Behaviour: the text that PDFium gives of a page holds one and the same noncharacter (U+FFFE) in two cases that need
#   opposite answers: for the hyphen at the end of a line whose word goes on in the next one, where it must be taken out
#   ("im-" + "portant"), and for a letter whose font maps it to nothing, where taking it out makes another word
#   ("di[ffi]cult" becomes "dicult"). Programs that know the first case and delete the character lose letters without a
#   word. Only a question for each place tells the two apart: FPDFText_IsHyphen, or FPDFText_GetUnicode, which answers 2
#   for the hyphen and 0 for the letter though both are U+FFFE in the text.
# Source: PDFium's public/fpdf_text.h describes FPDFText_IsHyphen and says nothing of the character that the text holds;
#   seen in arXiv papers whose fonts have no code for their ligatures.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install -q --disable-pip-version-check pypdfium2==5.15.2 2>/dev/null
cat > "$work/ask.py" <<'PY'
import sys

import pypdfium2
import pypdfium2.raw as raw

# One page: "di", a glyph of a font whose table of letters says 0000 for it, "cult to im-", and "portant" below.
page = "BT /F1 12 Tf 20 150 Td (di) Tj /F2 12 Tf <0E> Tj /F1 12 Tf (cult to im-) Tj 0 -14 Td (portant) Tj ET"
table = (
    "/CIDInit /ProcSet findresource begin 12 dict begin begincmap /CMapName /X def /CMapType 2 def "
    "1 begincodespacerange <00> <FF> endcodespacerange 1 beginbfchar <0E> <0000> endbfchar endcmap end end"
)
glyph = "1 0 d0 0 0 .6 .6 re f"


def stream(data):
    return f"<</Length {len(data)}>>stream\n{data}\nendstream"


objects = [
    "<</Type/Catalog/Pages 2 0 R>>",
    "<</Type/Pages/Kids[3 0 R]/Count 1>>",
    "<</Type/Page/Parent 2 0 R/MediaBox[0 0 300 200]/Contents 4 0 R/Resources<</Font<</F1 5 0 R/F2 6 0 R>>>>>>",
    stream(page),
    "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    "<</Type/Font/Subtype/Type3/FontBBox[0 0 1 1]/FontMatrix[1 0 0 1 0 0]/FirstChar 14/LastChar 14/Widths[1]"
    "/Resources<<>>/Encoding<</Type/Encoding/Differences[14/g]>>/CharProcs<</g 7 0 R>>/ToUnicode 8 0 R>>",
    stream(glyph),
    stream(table),
]
data, places = b"%PDF-1.7\n", []
for number, body in enumerate(objects, 1):
    places.append(len(data))
    data += f"{number} 0 obj\n{body}\nendobj\n".encode()
rows = "".join(f"{place:010} 00000 n \n" for place in places)
size = len(objects) + 1
data += f"xref\n0 {size}\n0000000000 65535 f \n{rows}trailer<</Size {size}/Root 1 0 R>>\nstartxref\n{len(data)}\n%%EOF\n".encode()

text_page = pypdfium2.PdfDocument(data)[0].get_textpage()
text = text_page.get_text_range()
print(ascii(text))
odd = [at for at, letter in enumerate(text) if letter == "\ufffe"]
answers = [(raw.FPDFText_GetUnicode(text_page, at), raw.FPDFText_IsHyphen(text_page, at)) for at in odd]
for at, (code, hyphen) in zip(odd, answers, strict=True):
    print(f"place {at}: the same character, code {code}, a hyphen: {hyphen}")
sys.exit(text != "di\ufffecult to im\ufffeportant" or answers != [(0, 0), (2, 1)])
PY
"$work/env/bin/python" "$work/ask.py"

# Saw, on Python 3.11:
# 'di\ufffecult to im\ufffeportant'
# place 2: the same character, code 0, a hyphen: 0
# place 13: the same character, code 2, a hyphen: 1
