#!/usr/bin/env bash
# Versions: lxml 6.1.3.
# Behaviour: the ``error_log`` of an XMLSyntaxError holds more than the errors of the document that raised it: it is a copy
#   of the thread's log, in which errors of documents that were read before still stand, even of those whose exception was
#   caught and forgotten. A program that decides by it (say, recovers from a slip, and refuses what hit a limit of the
#   parser) treats a harmless document like the hostile one before it, and only in that order: alone, or in another
#   process, the same document passes. The exception's own ``code`` and the ``error_log`` of the parser that was used are
#   of this document alone.
# Source: lxml src/lxml/etree.pyx, LxmlError.__init__ (copies the global log where it is given none); its documentation
#   shows both logs side by side and does not say that one of them outlives a document.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install -q --disable-pip-version-check lxml==6.1.3 2>/dev/null
cat > "$work/ask.py" <<'PY'
import sys

from lxml import etree


def names(log):
    return sorted({entry.type_name for entry in log})


def read(document):
    parser = etree.XMLParser()
    try:
        etree.fromstring(document, parser)
    except etree.XMLSyntaxError as error:
        return names(error.error_log), names(parser.error_log)
    raise AssertionError("read")


deep = b"<a>" * 300 + b"</a>" * 300
slip = b"<a>Salt & oil</a>"
first, own_first = read(slip)
hostile, own_hostile = read(deep)
again, own_again = read(slip)
print("a slip alone:               ", first, "; its parser's log:", own_first)
print("a document that is too deep:", own_hostile)
print("the same slip after it:     ", again, "; its parser's log:", own_again)
sys.exit(own_first != own_again or first == again or not set(own_hostile) & set(again))
PY
"$work/env/bin/python" "$work/ask.py"

# Saw, on Python 3.11:
# a slip alone:                ['ERR_NAME_REQUIRED'] ; its parser's log: ['ERR_NAME_REQUIRED']
# a document that is too deep: ['ERR_RESOURCE_LIMIT']
# the same slip after it:      ['ERR_NAME_REQUIRED', 'ERR_RESOURCE_LIMIT'] ; its parser's log: ['ERR_NAME_REQUIRED']
