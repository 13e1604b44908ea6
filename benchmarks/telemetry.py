"""What telemetry costs: whole runs with traces, metrics and a textfile, and without, by turns.

    python benchmarks/telemetry.py [--rows 20000] [--pairs 3]

The receiver of OTLP is that of the tests, in this process.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from store import first_run, ratios, source_of, steps

from tests.support.otlp import Receiver


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000, metavar="N", help="rows of the source (%(default)s)")
    parser.add_argument("--pairs", type=int, default=3, metavar="N", help="rounds of each (%(default)s)")
    options = parser.parse_args()
    found: dict[str, list[float]] = {"on": [], "off": []}
    with tempfile.TemporaryDirectory(prefix="telemetry-") as made, Receiver() as receiver:
        folder = Path(made)
        source = source_of(folder, options.rows)
        for number in range(2 * options.pairs):
            name = ("on", "off")[(number + number // 2) % 2]  # on, off, off, on, ...
            more, environment = '[state]\nuri = "state"\n', dict[str, str]()
            if name == "on":
                more += '[telemetry]\ntextfile = "metrics"\n'
                environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.http}
            report = first_run(folder / f"{number}", source, more, environment)
            found[name].append(report["wall"])
            print(f"{name}: {report['wall']:.1f} s ({steps(report)}), {len(receiver.spans)} spans so far", flush=True)
    ratios("on / off", found["on"], found["off"])


if __name__ == "__main__":
    main()
