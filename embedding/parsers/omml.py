"""Office Math to one line of text, as one would type it: ``x=(-b±√(b^2-4ac))/(2a)``."""

from __future__ import annotations

from collections.abc import Callable

from lxml import etree

M = "{http://schemas.openxmlformats.org/officeDocument/2006/math}"


def math_text(element: etree._Element | None) -> str:
    """Return a formula's text; an element that is not known gives the text inside it."""
    if element is None:
        return ""
    name = element.tag.removeprefix(M)
    if element.tag.endswith("}t"):
        return element.text or ""
    if name.endswith("Pr"):
        return ""
    shape = _SHAPES.get(name)
    return shape(element) if shape is not None else "".join(map(math_text, element))


def _part(element: etree._Element, name: str) -> str:
    return math_text(element.find(f"{M}{name}"))


def _grouped(text: str) -> str:
    return text if len(text) < 2 or text.isalnum() else f"({text})"


def _setting(element: etree._Element, name: str, default: str) -> str:
    found = element.find(f"{M}{element.tag.removeprefix(M)}Pr/{M}{name}")
    return default if found is None else found.get(f"{M}val") or ""


def _fraction(element: etree._Element) -> str:
    return f"{_grouped(_part(element, 'num'))}/{_grouped(_part(element, 'den'))}"


def _script(element: etree._Element) -> str:
    sub, sup = _part(element, "sub"), _part(element, "sup")
    return _part(element, "e") + (f"_{_grouped(sub)}" if sub else "") + (f"^{_grouped(sup)}" if sup else "")


def _before(element: etree._Element) -> str:
    sub, sup = _part(element, "sub"), _part(element, "sup")
    return (f"_{_grouped(sub)}" if sub else "") + (f"^{_grouped(sup)}" if sup else "") + _part(element, "e")


def _root(element: etree._Element) -> str:
    return f"{_part(element, 'deg')}√({_part(element, 'e')})"


def _sum(element: etree._Element) -> str:
    sub, sup = _part(element, "sub"), _part(element, "sup")
    scripts = (f"_{_grouped(sub)}" if sub else "") + (f"^{_grouped(sup)}" if sup else "")
    return f"{_setting(element, 'chr', '∫')}{scripts} {_part(element, 'e')}"


def _delimited(element: etree._Element) -> str:
    inside = _setting(element, "sepChr", "|").join(math_text(e) for e in element.findall(f"{M}e"))
    return f"{_setting(element, 'begChr', '(')}{inside}{_setting(element, 'endChr', ')')}"


def _function(element: etree._Element) -> str:
    return f"{_part(element, 'fName')} {_part(element, 'e')}"


def _limit(element: etree._Element) -> str:
    return f"{_part(element, 'e')}_{_grouped(_part(element, 'lim'))}"


def _matrix(element: etree._Element) -> str:
    rows = (", ".join(math_text(e) for e in row.findall(f"{M}e")) for row in element.findall(f"{M}mr"))
    return f"[{'; '.join(rows)}]"


def _lines(element: etree._Element) -> str:
    return "; ".join(math_text(e) for e in element.findall(f"{M}e"))


_SHAPES: dict[str, Callable[[etree._Element], str]] = {
    "f": _fraction,
    "sSup": _script,
    "sSub": _script,
    "sSubSup": _script,
    "sPre": _before,
    "rad": _root,
    "nary": _sum,
    "d": _delimited,
    "func": _function,
    "limLow": _limit,
    "limUpp": _limit,
    "m": _matrix,
    "eqArr": _lines,
}
