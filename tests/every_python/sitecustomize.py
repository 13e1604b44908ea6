"""Imported by every Python process of a test's run, the workers of Spark and Ray among them.

Logs everything to standard error, and makes fail what EMBEDMILL_TEST_FAULTS names: with the text that was being worked
on in the exception's message, as a careless library would.
"""

import importlib.abc
import importlib.util
import logging
import os
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

logging.basicConfig(level=logging.DEBUG)
FAULTS = set(os.environ.get("EMBEDMILL_TEST_FAULTS", "").split(","))


def encoder(module: Any) -> None:
    """Two texts that no encoder takes: one raises, one kills the process."""
    encode = module.HashEncoder.encode

    def fragile(self: Any, texts: Sequence[str], tokens: Any) -> Any:
        if any("kills" in text for text in texts):
            os._exit(1)
        if any("raises" in text for text in texts):
            raise ValueError(f"cannot encode {texts}")
        return encode(self, texts, tokens)

    module.HashEncoder.encode = fragile


def raising(owner: Any, name: str, what: str) -> None:
    """Replace a function by one that fails and quotes what it was given."""

    def fail(*given: Any, **named: Any) -> None:
        raise ValueError(f"{what} failed on {[getattr(one, 'to_pylist', lambda one=one: one)() for one in given]}")

    getattr(owner, name)  # or what is to fail has another name by now, and nothing would
    setattr(owner, name, fail)


BREAK: dict[str, tuple[str, Callable[[Any], None]]] = {
    "encoder": ("embedding.encoders.local.hashed", encoder),
    "query": ("embedding.encoders.local.hashed", lambda m: raising(m.HashEncoder, "encode", "query")),
    "cut": ("jobs.extract.cutting", lambda m: raising(m.DocumentCutter, "cut", "cut")),
    "shard": ("jobs.embed.workers", lambda m: raising(m.EncodeShard, "_encode", "shard")),
    "table": ("jobs.state.frames", lambda m: raising(m, "write_part", "table")),
    "index": ("indexers.milvus.index", lambda m: raising(m, "encode", "index")),
    "training": ("jobs.training.fit", lambda m: raising(m, "_features", "training")),
    "measures": ("jobs.training.measures", lambda m: raising(m, "_ndcg", "measures")),
    "ledger": ("jobs.publish.publisher", lambda m: raising(m, "commit_intent", "ledger")),
}


class Breaker(importlib.abc.MetaPathFinder):
    """Breaks a module right after it was imported."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See importlib: only the modules that are to be broken are of interest."""
        todo = [how for fault, (module, how) in BREAK.items() if fault in FAULTS and module == name]
        if not todo:
            return None
        sys.meta_path.remove(self)
        try:
            spec = importlib.util.find_spec(name)
        finally:
            sys.meta_path.insert(0, self)
        assert spec is not None and spec.loader is not None
        load = spec.loader.exec_module

        def load_and_break(module: ModuleType) -> None:
            load(module)
            for how in todo:
                how(module)

        setattr(spec.loader, "exec_module", load_and_break)  # noqa: B010 - a method is replaced
        return spec


if FAULTS - {""}:
    sys.meta_path.insert(0, Breaker())
