"""The Vespa application package: a document type for each version of an index, and one that says which of them is live.

Vespa has no alias and keeps no properties of a document type. So a small type, ``{name}__versions``, holds a document
for each version (its space and dimension), one for its owner, and one with the id ``live``, the pointer that searches
read. Writes files; never deploys them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Literal

from vespa.package import (
    HNSW,
    ApplicationPackage,
    Document,
    DocumentSummary,
    Field,
    QueryField,
    QueryProfile,
    QueryProfileType,
    RankProfile,
    Schema,
    Summary,
    Validation,
    ValidationID,
)

from embedding.errors import ConfigError
from embedding.records import Metric
from indexers.base import check_name, version_number
from indexers.rows import ADDED

LIVE = "live"  # the id of the pointer's document
HIT_FIELDS = (
    "chunk_id",
    "team_id",
    "channel_id",
    "channel_name",
    "kind",
    "doc_id",
    "text",
    "created_at",
    "meta",
    "author",
    "author_id",
    "thread_id",
    "title",
    "visibility",
    "mentions",
    "has_file",
    "language",
)
FILTERS = ("team_id", "channel_id", "kind", "author_id", "thread_id", "visibility", "mentions", "language")
MAX_HITS = 1_000  # Vespa's own limit is 400 hits a query
OVERRIDE_DAYS = 7  # how long a package that drops or changes unused types can be deployed

# By how vectors are compared: the rank profile, its expression, and the distance of the graph. The names differ, so
# that a query tells which of them a type is deployed with.
PROFILES: Mapping[Metric, str] = {"cosine": "semantic", "dot": "semantic_dot"}
_EXPRESSIONS: Mapping[Metric, str] = {
    "cosine": "cosine_similarity(query(q), attribute(vector), x)",
    "dot": "sum(query(q) * attribute(vector))",
}
_DISTANCES: Mapping[Metric, Literal["angular", "dotproduct"]] = {"cosine": "angular", "dot": "dotproduct"}
_VECTOR = re.compile(r"field vector type tensor<float>\(x\[([0-9]+)\]\)")


def versions_type(name: str) -> str:
    """The document type of an index's versions and its pointer."""
    return f"{check_name(name)}__versions"


def application_name(name: str) -> str:
    """The application's name; ConfigError for a name of an index that Vespa cannot take."""
    if len(check_name(name)) > 40 or not re.match(r"[A-Za-z]", name):
        raise ConfigError(f"index.name: {name!r} must begin with a letter and have at most 40 characters for Vespa")
    return name.lower()


def content_cluster(name: str) -> str:
    """The id of the content cluster, which visits and deletes by selection must name."""
    return f"{application_name(name)}_content"


def write_package(
    folder: Path,
    name: str,
    dims: Mapping[str, int],
    *,
    earlier: Collection[str] = (),
    dot: Collection[str] = (),
    unused: bool = False,
) -> list[str]:
    """Write the package with a document type for each version in ``dims`` (to its dimension), in place of an older one.

    Types of the versions in ``earlier`` keep the columns that they have had in an earlier release; those of the
    versions in ``dot`` compare vectors by their dot product.

    Where the older package in the folder has types that go, or that get another dimension or other columns, Vespa
    refuses the deployment unless an override allows it for some days. ``unused`` says that these hold nothing, and
    writes the override. A services.xml that is there stays as it is but for our document types, as nodes are an
    operator's to set. Returns the names of the types that go or change.
    """
    before = read_dims(folder, name)
    changed = [version for version, dim in before.items() if version in dims and dims[version] != dim]
    grown = sorted((read_earlier(folder, name) & set(dims)) - set(earlier))
    grown += sorted((read_dot(folder, name) ^ set(dot)) & set(dims) & set(before))
    gone = [version for version in before if version not in dims]
    validations = []
    if unused:
        until = (date.today() + timedelta(days=OVERRIDE_DAYS)).isoformat()
        validations += [Validation(ValidationID.tensorTypeChange, until)] if changed else []
        validations += [Validation(ValidationID.indexingChange, until)] if grown else []
        validations += [Validation(ValidationID.contentTypeRemoval, until)] if gone else []
    for file in [folder / "schemas" / f"{version}.sd" for version in gone] + [folder / "validation-overrides.xml"]:
        file.unlink(missing_ok=True)
    services = folder / "services.xml"
    held = services.read_text() if services.exists() else None
    application(name, dims, validations, earlier, dot).to_files(folder)
    if held is not None:
        services.write_text(_with_types(held, services.read_text(), name))
    return sorted({*changed, *grown, *gone})


def read_dims(folder: Path, name: str) -> dict[str, int]:
    """The versions that a package in a folder has, and their dimensions; nothing where there is no package."""
    found = {}
    for file in sorted((folder / "schemas").glob("*.sd")):
        vector = _VECTOR.search(file.read_text())
        if vector is not None and version_number(name, file.stem) is not None:
            found[file.stem] = int(vector[1])
    return found


def read_earlier(folder: Path, name: str) -> set[str]:
    """Those of the versions that a package in a folder has whose types lack the columns of this release."""
    files = {version: (folder / "schemas" / f"{version}.sd").read_text() for version in read_dims(folder, name)}
    return {version for version, text in files.items() if "field lexical type" not in text}


def read_dot(folder: Path, name: str) -> set[str]:
    """Those of the versions that a package in a folder has whose types compare vectors by their dot product."""
    files = {version: (folder / "schemas" / f"{version}.sd").read_text() for version in read_dims(folder, name)}
    return {version for version, text in files.items() if f"distance-metric: {_DISTANCES['dot']}" in text}


def application(
    name: str,
    dims: Mapping[str, int],
    validations: list[Validation] | None = None,
    earlier: Collection[str] = (),
    dot: Collection[str] = (),
) -> ApplicationPackage:
    """The whole package as pyvespa knows it."""
    schemas = [_versions_schema(name)]
    for version in sorted(dims, key=lambda v: (len(v), v)):
        metric: Metric = "dot" if version in dot else "cosine"
        schemas.append(_version_schema(version, dims[version], metric, ADDED if version in earlier else ()))
    return ApplicationPackage(
        name=application_name(name),
        schema=schemas,
        query_profile=QueryProfile(fields=[QueryField(name="maxHits", value=MAX_HITS)]),
        query_profile_type=QueryProfileType(),
        validations=validations,
    )


def _with_types(held: str, written: str, name: str) -> str:
    """A services.xml with the document types of another in the place of its own."""
    ours = re.compile(rf'\s*<document type="{name}__(?:v[0-9]+|versions)"[^>]*?(?:/>|></document>)')
    kept = ours.sub("", held)
    opening = re.search(r"<documents\b[^>/]*>", kept)
    if opening is None:
        raise ConfigError("services.xml: it has no <documents> for the document types; mend it, or take it away")
    return kept[: opening.end()] + "".join(found[0] for found in ours.finditer(written)) + kept[opening.end() :]


def _versions_schema(name: str) -> Schema:
    kept = ["attribute", "summary"]
    fields = [
        Field("version", "string", indexing=kept, match=["word", "cased"]),
        Field("space_id", "string", indexing=kept, match=["word", "cased"]),
        Field("dim", "int", indexing=kept),
    ]
    return Schema(versions_type(name), Document(fields=fields))


def _version_schema(version: str, dim: int, metric: Metric, without: Collection[str]) -> Schema:
    """The document type of a version; ``without`` has the columns that it lacks, all of ADDED or none."""
    stored = ("chunk_id", "channel_name", "doc_id", "meta", "content_hash", "meta_hash", "author", "title")
    fields = [_stored(name) for name in stored if name not in without]
    fields += [_filter(name) for name in FILTERS if name not in without]
    if "has_file" not in without:
        fields.append(Field("has_file", "bool", indexing=["attribute", "summary"], rank="filter"))
    words = "text" if "lexical" in without else "lexical"
    fields += [
        Field("chunk_no", "int", indexing=["summary"]),
        Field("created_at", "long", indexing=["attribute", "summary"]),
        Field("updated_at", "long", indexing=["attribute", "summary"]),
        # In memory, as every write asks for it in its condition.
        Field("version", "long", indexing=["attribute", "summary"]),
    ]
    # Words as they are written: a query is too short to tell its language, and stemming by another than the message's
    # would lose matches.
    shown = ["summary"] if words == "text" else []
    fields.append(Field(words, "string", indexing=["index", *shown], index="enable-bm25", stemming="none"))
    fields += [] if words == "text" else [_stored("text")]
    fields.append(
        Field(
            "vector",
            f"tensor<float>(x[{dim}])",
            indexing=["attribute", "index"],
            ann=HNSW(distance_metric=_DISTANCES[metric], max_links_per_node=16, neighbors_to_explore_at_insert=200),
        )
    )
    profiles = [
        RankProfile(
            PROFILES[metric], inputs=[("query(q)", f"tensor<float>(x[{dim}])")], first_phase=_EXPRESSIONS[metric]
        ),
        RankProfile("bm25", first_phase=f"bm25({words})"),
    ]
    # Without the vector, which is a hundred times as large as what a search shows.
    hit = [Summary(name=name) for name in HIT_FIELDS if name not in without]
    summary = DocumentSummary("hit", summary_fields=hit, from_disk=True)
    return Schema(version, Document(fields=fields), rank_profiles=profiles, document_summaries=[summary])


def _stored(name: str) -> Field:
    return Field(name, "string", indexing=["summary"])


def _filter(name: str) -> Field:
    """A field that searches filter by: found through a dictionary, ``T01`` and ``t01`` apart, without ranking data."""
    return Field(
        name,
        "array<string>" if name == "mentions" else "string",
        indexing=["attribute", "summary"],
        attribute=["fast-search"],
        match=["word", "cased"],
        rank="filter",
    )
