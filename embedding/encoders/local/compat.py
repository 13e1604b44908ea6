"""OpenVINO, imported so that its converter reports its use to no one. Import it from here alone.

The converter has a stub for its reporter, which it takes where the package ``openvino_telemetry`` is missing; a None in
``sys.modules`` is Python's own way to say that. ``pyproject.toml`` bounds the version of OpenVINO.
"""

from __future__ import annotations

import sys

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
import openvino  # noqa: E402

__all__ = ["openvino"]
