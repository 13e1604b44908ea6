"""RTF's control words: what stands for a character, what names a code page, and what begins text of another kind."""

from __future__ import annotations

import codecs

CHARSETS = {
    0: "cp1252",
    77: "mac_roman",
    78: "cp932",
    79: "big5",
    80: "cp949",
    81: "mac_arabic",
    82: "cp1255",
    83: "mac_greek",
    84: "mac_cyrillic",
    85: "gb18030",
    87: "cp874",
    89: "mac_latin2",
    128: "cp932",
    129: "cp949",
    130: "johab",
    134: "gb18030",
    136: "big5",
    161: "cp1253",
    162: "cp1254",
    163: "cp1258",
    177: "cp1255",
    178: "cp1256",
    186: "cp1257",
    204: "cp1251",
    222: "cp874",
    238: "cp1250",
    254: "cp437",
    255: "cp850",
}
DOCUMENT_CODECS = {b"mac": "mac_roman", b"pc": "cp437", b"pca": "cp850"}
_CODE_PAGES = {936: "gb18030", 1361: "johab", 10000: "mac_roman", 65001: "utf-8"}

CHARACTERS = {
    b"tab": "\t",
    b"line": "\n",
    b"lbr": "\n",
    b"emdash": "\u2014",
    b"endash": "\u2013",
    b"emspace": " ",
    b"enspace": " ",
    b"qmspace": " ",
    b"bullet": "\u2022",
    b"lquote": "\u2018",
    b"rquote": "\u2019",
    b"ldblquote": "\u201c",
    b"rdblquote": "\u201d",
    b"softline": "\n",
    b"column": "\n",
}
SYMBOLS = {b"~": "\xa0", b"_": "-", b"-": "", b"{": "{", b"}": "}", b"\\": "\\", b"\t": "\t"}
PARAGRAPH_ENDS = frozenset([b"par", b"sect", b"page", b"\n", b"\r"])

# Text that is kept apart from the body, and the part it is named in a mark.
SIDE = {
    b"header": "header",
    b"headerl": "header",
    b"headerr": "header",
    b"headerf": "header",
    b"footer": "footer",
    b"footerl": "footer",
    b"footerr": "footer",
    b"footerf": "footer",
    b"footnote": "footnotes",
    b"annotation": "comments",
}
# Destinations marked as optional ("\*") that hold text nevertheless.
OPTIONAL_TEXT = frozenset([b"shpinst", b"shptxt", b"do", b"ud", b"moMath", b"moMathPara", b"picprop", *SIDE])
SKIPPED = frozenset(
    [
        b"colortbl",
        b"stylesheet",
        b"listtable",
        b"listoverridetable",
        b"revtbl",
        b"rsidtbl",
        b"pict",
        b"objdata",
        b"fldinst",
        b"datafield",
        b"xe",
        b"tc",
        b"tcn",
        b"txe",
        b"rxe",
        b"filetbl",
        b"info",
        b"nonesttables",
        b"background",
        b"upr",
        b"shprslt",
        b"mmathPict",
        b"ftnsep",
        b"ftnsepc",
        b"aftnsep",
        b"aftnsepc",
        b"atnid",
        b"atnauthor",
        b"generator",
        b"themedata",
        b"fontemb",
        b"fontfile",
        b"falt",
        b"panose",
        b"sp",
    ]
)


def code_page(number: int | None) -> str:
    """Return Python's codec of a Windows code page, cp1252 for one that it does not have."""
    codec = _CODE_PAGES.get(number or 0, f"cp{number}")
    try:
        codecs.lookup(codec)
    except LookupError:
        return "cp1252"
    return codec
