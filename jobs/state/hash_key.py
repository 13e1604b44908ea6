"""The key of content hashes: from the configuration, or made by the first run and kept beside the tables."""

from __future__ import annotations

import secrets

from embedding.errors import ConfigError, DamagedStateError
from jobs.state.integrity import recorded_versions
from jobs.state.storage import StatePath, create_file

KEY_FILE = "hash.key"
KEY_BYTES = 32
LEAST_BYTES, MOST_BYTES = 16, 64  # of one that is given; the second is all that BLAKE2 takes


def given_key(given: str) -> bytes:
    """A key of the configuration, in hexadecimal; b"" where none is given. Raises ConfigError for a bad one."""
    try:
        key = bytes.fromhex(given)
    except ValueError:
        raise ConfigError("state.hash_key: must be hexadecimal") from None
    if given and not LEAST_BYTES <= len(key) <= MOST_BYTES:
        raise ConfigError(
            f"state.hash_key: give {2 * LEAST_BYTES} to {2 * MOST_BYTES} hexadecimal digits "
            f"({LEAST_BYTES} to {MOST_BYTES} bytes), not {len(given)}"
        )
    return key


def stored_key(root: StatePath) -> bytes:
    """The key of a state; b"" where no run has written yet. Raises DamagedStateError for one that was lost."""
    file = root / KEY_FILE
    try:
        key = file.read_bytes()
    except FileNotFoundError:
        if not recorded_versions(root):
            return b""
        key = b""
    if len(key) != KEY_BYTES:  # with another key every text would count as new
        raise DamagedStateError(
            f"state.uri: {file} is damaged; put it back from a backup, or give its bytes as state.hash_key"
        )
    return key


def make_key(root: StatePath) -> bytes:
    """Make the key of a state that has none. Call it only while holding the lease."""
    key = secrets.token_bytes(KEY_BYTES)
    return key if create_file(root / KEY_FILE, key) else stored_key(root)
