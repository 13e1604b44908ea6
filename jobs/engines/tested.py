"""The versions that embedmill's tests ran with: others are likely to work, and are worth a look in an incident."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

# As in requirements.txt. Without the packages that not every installation has.
TESTED = {
    "deltalake": "1.6.6",
    "duckdb": "2.0.1",
    "numpy": "2.4.6",
    "obstore": "0.12.1",
    "pyarrow": "26.0.1",
    "pymilvus": "3.0.2",
    "pyspark": "4.3.0",
    "ray": "2.60.0",
    "sentence-transformers": "6.2.0",
    "tokenizers": "0.23.3",
    "torch": "2.13.0",
    "transformers": "5.23.0",
}


def untested() -> dict[str, str]:
    """Packages that are here in another version, with that version; "none" where one is missing."""
    found = {name: installed(name) for name in TESTED}
    return {name: here for name, here in found.items() if here.partition("+")[0] != TESTED[name]}


def installed(name: str) -> str:
    """The version of a package that is here, "none" where there is none."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"
