"""The key of the content hashes: of 32 random bytes kept beside the tables, or given by the configuration."""

from __future__ import annotations

import secrets
from pathlib import Path

from embedding.errors import ConfigError, DamagedStateError
from jobs.state.atomic_file import replace_file
from jobs.state.integrity import versions_noted

HASH_KEY_BYTES = 32
LEAST_KEY_BYTES, MOST_KEY_BYTES = 16, 64  # of one that is given; the second is all that BLAKE2 takes


def open_hash_key(root: Path, given: str) -> bytes:
    """The ``given`` key (hexadecimal digits), else that of the state below ``root``, made where the state is new.

    Raises ConfigError for a given one that is no key, DamagedStateError where the state has lost its own.
    """
    if given:
        try:
            key = bytes.fromhex(given)
        except ValueError:
            raise ConfigError("state.hash_key: must be hexadecimal") from None
        if not LEAST_KEY_BYTES <= len(key) <= MOST_KEY_BYTES:
            raise ConfigError(
                f"state.hash_key: give {2 * LEAST_KEY_BYTES} to {2 * MOST_KEY_BYTES} hexadecimal digits "
                f"({LEAST_KEY_BYTES} to {MOST_KEY_BYTES} bytes), not {len(given)}"
            )
        return key
    file = root / "hash.key"
    if not file.exists() and not versions_noted(root):
        replace_file(file, secrets.token_bytes(HASH_KEY_BYTES))
    key = file.read_bytes() if file.exists() else b""
    if len(key) != HASH_KEY_BYTES:  # with another key every text would count as new
        raise DamagedStateError(
            f"state.uri: {file} is damaged; put it back from a backup, or give its bytes as state.hash_key"
        )
    return key
