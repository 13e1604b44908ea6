"""Addresses of hits: made when a search is answered, from ids alone, so that a new address changes no row."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from embedding.ids import is_cut
from jobs.config_sources import LinkedSource, SourceSection
from jobs.sources import qualifiers

if TYPE_CHECKING:
    from indexers.base import Hit

_KINDS = {"slack_export": "m", "files": "f", "table": "t"}  # the second part of a document's id
_ID = re.compile(r"(?P<team>[^/]*)/(?P<kind>[mft])/(?:@(?P<source>[^/]*)/)?(?P<rest>.*)", re.DOTALL)


class Permalinks:
    """Finds the source of a hit by the document's id, and fills in that source's ``permalink``."""

    def __init__(self, sources: Sequence[SourceSection]) -> None:
        self._sources = [
            (_KINDS[source.kind], quote(qualifier, ""), source)
            for source, qualifier in zip(sources, qualifiers(sources), strict=True)
            if isinstance(source, LinkedSource) and source.kind in _KINDS
        ]

    def of(self, hit: Hit) -> str:
        """The address; of a file without one its path below the source's folder, else "".

        An id that was too long to be kept whole has none.
        """
        found = _ID.fullmatch(hit.doc_id)
        if found is None or is_cut(hit.doc_id):
            return ""
        template = self._template(found["kind"], found["source"] or "", hit.team_id)
        if template is None:
            return unquote(found["rest"]) if found["kind"] == "f" else ""
        fields = {"team_id": found["team"], "channel_id": quote(hit.channel_id, "")}
        if found["kind"] != "m":
            return _filled(template, fields | {"path": found["rest"], "id": found["rest"]})
        ts = found["rest"].rpartition("/")[2]
        address = _filled(template, fields | {"ts": ts.replace(".", "")})
        if hit.thread_id and template.endswith("/p{ts}"):  # as Slack addresses a reply
            address += f"?thread_ts={hit.thread_id.rpartition('/')[2]}&cid={fields['channel_id']}"
        return address

    def _template(self, kind: str, qualifier: str, team_id: str) -> str | None:
        """Of two exports of one team, whose ids do not tell them apart, the first that has one."""
        mine = [
            source.permalink
            for its_kind, its_qualifier, source in self._sources
            if (its_kind, its_qualifier) == (kind, qualifier) and source.team_id in (None, team_id)
        ]
        return next((template for template in mine if template), None)


def _filled(template: str, fields: Mapping[str, str]) -> str:
    return re.sub(r"\{([^{}]*)\}", lambda found: fields.get(found[1], ""), template)
