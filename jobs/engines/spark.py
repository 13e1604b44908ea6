"""Starts Spark: sized, quiet, with one line for the user when it cannot start."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from embedding.errors import ConfigError, ResourceError
from jobs.engines.class_archive import ClassArchive, check_java
from jobs.engines.compat import start_jvm
from jobs.redaction import SECRET_NAMES, is_secret, masked
from jobs.state.path_alias import plain

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from jobs.config import Config

_LOG4J = """
rootLogger.level = off
"""


def start_spark(config: Config, scratch: Path, log: Path, *, reads: bool) -> SparkSession:
    """The Spark session of this process, started on first use with ``scratch`` for its temporary files.

    ``reads``: sources are read first, as in a run.

    Under `spark-submit` the master, the driver's address, its memory and its folders are what that was given.

    Raises ResourceError where Java is missing or Spark does not start.
    """
    from pyspark.errors import PySparkRuntimeError
    from pyspark.sql import SparkSession

    from jobs.state.work_folder import open_scratch

    # Active or default: which one is active is known to a thread of the JVM, and ours may have got another one.
    with suppress(PySparkRuntimeError):
        return SparkSession.active()
    submitted = "PYSPARK_GATEWAY_PORT" in os.environ  # spark-submit's own, to the Python that it starts
    archive = None if submitted else ClassArchive(config.cache, check_java(), complete=reads)
    open_scratch(scratch, config.state.lease_seconds)
    scratch = plain(scratch)
    log4j = scratch / "log4j2.properties"
    log4j.write_text(_LOG4J)
    local = scratch / "spark"
    # A crash of Java tells of its memory: into the private scratch, and not where the user stands.
    java = f"-XX:ErrorFile={scratch}/java-%p.log -Dlog4j2.configurationFile=file:{log4j} -Dderby.system.home={local}"
    java += f" {archive.options()}" if archive else ""
    machine = {
        "spark.master": config.spark.master,
        "spark.driver.memory": config.spark.driver_memory,
        "spark.driver.extraJavaOptions": java,
        "spark.local.dir": str(local),
    }
    if (address := driver_address(config.spark.master)) is not None:
        machine |= {"spark.driver.host": address, "spark.driver.bindAddress": address}
    if not config.spark.master.startswith("local"):
        machine["spark.io.encryption.enabled"] = "true"  # texts that executors put on their own disks
    settings = {
        "spark.app.name": "embedmill",
        "spark.sql.warehouse.dir": str(local / "warehouse"),
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.codegen.cache.maxEntries": "2000",  # a run compiles more classes than the default keeps
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.sources.partitionColumnTypeInference.enabled": "false",
        "spark.sql.execution.arrow.maxRecordsPerBatch": "4096",
        "spark.python.worker.reuse": "true",
        "spark.executorEnv.TOKENIZERS_PARALLELISM": "false",
        "spark.executorEnv.OMP_NUM_THREADS": "1",
        "spark.redaction.regex": SECRET_NAMES,  # what Spark's event log and pages show of settings
        "spark.sql.shuffle.partitions": "8",
        "spark.sql.parquet.compression.codec": "zstd",
        **_exporter(config.telemetry.spark_port),
        **config.spark.properties,
    }
    if not submitted:
        settings = machine | settings
    os.environ.setdefault("PYSPARK_PYTHON", settings.get("spark.pyspark.python", sys.executable))
    os.environ.setdefault("PYSPARK_DRIVER_PYTHON", sys.executable)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    if not _names_in_utf8(os.environ):
        os.environ["LC_ALL"] = "C.UTF-8"  # or Java finds no file whose name is not ASCII
    logging.getLogger("py4j").setLevel(logging.WARNING)  # at debug level it tells every call with its arguments
    builder = SparkSession.builder
    for key, value in settings.items():
        builder = builder.config(key, value)
    at_start = "spark.driver.extraJavaOptions"
    shown = {k: v for k, v in settings.items() if k == at_start or not is_secret(k) and masked(v) == v}
    interrupt = signal.getsignal(signal.SIGINT)
    try:
        start_jvm(shown)
        session = builder.getOrCreate()
    except Exception as error:
        raise ResourceError(f"Spark did not start ({type(error).__name__}); see {log}") from None
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, interrupt)  # PySpark's own asks the JVM first, for as long as that takes
    if archive:
        archive.keep(session)
    return session


def _exporter(port: int) -> dict[str, str]:
    """What makes Spark tell Prometheus of itself, by names that are the same in each run; nothing without a port.

    Its page has to be on for it; nobody can stop jobs by that.
    """
    if not port:
        return {}
    return {
        "spark.ui.enabled": "true",
        "spark.ui.port": str(port),
        "spark.ui.killEnabled": "false",
        "spark.ui.prometheus.enabled": "true",
        "spark.metrics.namespace": "embedmill",
        "spark.metrics.conf.*.sink.prometheusServlet.class": "org.apache.spark.metrics.sink.PrometheusServlet",
        "spark.metrics.conf.*.sink.prometheusServlet.path": "/metrics/prometheus",
        "spark.metrics.conf.*.source.jvm.class": "org.apache.spark.metrics.source.JvmSource",
    }


def driver_address(master: str) -> str | None:
    """The address at which executors of a master reach this process; None where Spark itself has to find out.

    Of a standalone master that of the interface by which this machine reaches it. Raises ConfigError for a host that
    this machine does not know.
    """
    if master.startswith("local"):
        return "127.0.0.1"
    found = re.match(r"spark://(\[[^\]]+\]|[^:,/]+):([0-9]+)", master)
    if found is None:
        return None
    host, port = found[1].strip("[]"), int(found[2])
    try:
        kind, _, _, _, target = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(kind, socket.SOCK_DGRAM) as looking:
            looking.connect(target)  # sends nothing
            return str(looking.getsockname()[0])
    except OSError as error:
        raise ConfigError(f"spark.master: this machine does not find {host} ({error.strerror or error})") from None


def _names_in_utf8(environment: Mapping[str, str]) -> bool:
    """Whether a program that goes by the locale writes the names of files in UTF-8, as Python does in any case."""
    locale = environment.get("LC_ALL") or environment.get("LC_CTYPE") or environment.get("LANG") or "C"
    return re.search(r"(?i)utf-?8", locale) is not None
