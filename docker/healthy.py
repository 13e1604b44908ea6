"""Health check of a container: healthy.py URL [KEY.KEY=VALUE], with what a slim image has, which is no curl.

Exit 0 where the address answers with 2xx, and where its JSON says what was asked for; 1 with one line otherwise.
"""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request

TIMEOUT_SECONDS = 5.0  # less than the compose file's timeout, so that the reason is in the container's health log


def fault(url: str, expected: str = "", timeout: float = TIMEOUT_SECONDS) -> str:
    """What is wrong with a service; "" where nothing is."""
    # Health is asked for inside the container or its network, never through a proxy that the image was given.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=timeout) as answer:
            body = answer.read()
    except urllib.error.HTTPError as error:
        return f"{url}: {error.code}"
    except (OSError, ValueError) as error:  # refused, hung, no such host, not a URL
        return f"{url}: {error}"
    if not expected:
        return ""
    path, _, value = expected.partition("=")
    try:
        found = json.loads(body)
        for key in path.split("."):
            found = found[key]
    except (ValueError, LookupError, TypeError):
        return f"{url}: no {path} in the answer"
    return "" if str(found) == value else f"{url}: {path} is {found}, not {value}"


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 3:
        sys.exit("usage: healthy.py URL [KEY.KEY=VALUE]")
    sys.exit(fault(*sys.argv[1:]) or 0)
