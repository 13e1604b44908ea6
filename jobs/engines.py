"""Starting and stopping Spark and Ray: sized, quiet, and with one line for the user when they cannot start."""

from __future__ import annotations

import logging
import os
import re
import shutil
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext, redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO
from unittest.mock import patch

from embedding.errors import ResourceError
from jobs import ending
from jobs.alias import plain
from jobs.jvm import ClassArchive, check_java
from jobs.masking import SECRET_NAMES, is_secret, masked

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from jobs.config import Config

MAX_LOG_BYTES = 1_000_000
_LOG4J = """
rootLogger.level = off
"""


# Read by the engines' native parts when they start. None of their chatter helps a person at a terminal.
_QUIET = {
    "GLOG_minloglevel": "3",
    # Engines are started by fork and exec, beside gRPC's threads (Milvus); its handlers for a fork have nothing to do
    # in a child that execs at once, and can hang there.
    "GRPC_ENABLE_FORK_SUPPORT": "0",
    "GRPC_VERBOSITY": "NONE",
    "HF_HUB_OFFLINE": "1",
    # glibc's malloc raises the size from which memory is the system's again when it is freed, up to 32 MB. What then
    # stays with the heap of each thread made an encode actor grow by a tenth within its first shards.
    "MALLOC_MMAP_THRESHOLD_": "1048576",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray ends workers that were idle for a second. The next shard then waits for a new one, and its start takes a
    # core's whole second from the encoder.
    "RAY_idle_worker_killing_time_threshold_ms": "600000",
    "RAY_num_workers_soft_limit": "4",
}


def quiet_engines() -> None:
    """Set the engines' environment: silent, offline, telling nobody of their use. Call before they are imported."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)


def check_disk(root: Path, min_free_mb: int) -> None:
    """Raise ResourceError where the state's disk is nearly full: better now than half-way."""
    free = shutil.disk_usage(root).free // 1_000_000
    if free < min_free_mb:
        raise ResourceError(
            f"disk full: {root} has {free} MB free, limits.min_free_mb asks for {min_free_mb}; free some space"
        )


@contextmanager
def own_terminal(log: Path) -> Iterator[None]:
    """Keep the terminal for our own lines; what engines write to descriptors 1 and 2 and to stdout goes to ``log``.

    A JVM writes to the first, a raylet or a panic in a Rust thread to the second, Ray its news of dead workers to the
    third, and no setting of theirs stops all of it. The log may quote a document, so it is private and lies with the
    state.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    kept, ours = {number: os.dup(number) for number in (1, 2)}, sys.stderr
    sink = _sink(log)
    for number in kept:
        os.dup2(sink, number)
    if _is_descriptor(2, ours):
        sys.stderr = os.fdopen(os.dup(kept[2]), "w", buffering=1, encoding=ours.encoding, errors=ours.errors)
    try:
        with os.fdopen(sink, "w", buffering=1, errors="backslashreplace") as chatter, redirect_stdout(chatter):
            yield
    finally:
        sys.stderr.flush()
        sys.stderr = ours
        for number, before in kept.items():
            os.dup2(before, number)
            os.close(before)


class OwnOutput:
    """Standard output for the thread that makes it, until ``end``: what others print, or anybody later, is dropped.

    Ray's threads print the news of dead workers until the very end, after ``own_terminal``, and one JSON object is
    promised. Where ``out`` is descriptor 1, that is standard error from then on, for whatever writes there by itself.
    """

    def __init__(self, out: TextIO) -> None:
        out.flush()
        if _is_descriptor(1, out):
            out = os.fdopen(os.dup(1), "w", encoding=out.encoding, errors=out.errors)
            os.dup2(2, 1)
        self._out = out
        self._thread: int | None = threading.get_ident()

    def write(self, text: str) -> int:
        """Print, or drop."""
        return self._out.write(text) if threading.get_ident() == self._thread else len(text)

    def end(self) -> None:
        """Print nothing any more."""
        self._thread = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._out, name)


def _sink(log: Path) -> int:
    try:
        log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        grown = log.exists() and log.stat().st_size > MAX_LOG_BYTES
        return os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | (os.O_TRUNC if grown else 0), 0o600)
    except OSError:  # a full or read-only disk is reported by the work itself, if it needs the disk
        return os.open(os.devnull, os.O_WRONLY)


def _is_descriptor(number: int, stream: TextIO) -> bool:
    try:
        return stream.fileno() == number
    except (OSError, ValueError):
        return False


# What small work takes its time for is not the work, but planning it, compiling it, and starting stages and tasks.
_SMALL = {
    "spark.sql.shuffle.partitions": "1",  # what ``frames.gathered`` goes by
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.adaptive.enabled": "false",  # planning anew after each stage is a job a stage
    "spark.sql.sources.bucketing.autoBucketedScan.enabled": "false",  # or each persist clones the session
    "spark.sql.autoBroadcastJoinThreshold": "-1",  # a broadcast is a job, and one partition needs none
    # What Spark writes, or caches, is read a few times and removed.
    "spark.sql.inMemoryColumnarStorage.compressed": "false",
    "spark.sql.parquet.compression.codec": "uncompressed",
    "spark.hadoop.parquet.enable.dictionary": "false",
    # They move a join below what gathers its input, and then it needs an exchange.
    "spark.sql.optimizer.excludedRules": ",".join(
        f"org.apache.spark.sql.catalyst.optimizer.{rule}"
        for rule in ("PushDownLeftSemiAntiJoin", "PushLeftSemiLeftAntiThroughJoin")
    ),
}
_LARGE = {"spark.sql.shuffle.partitions": "8", "spark.sql.parquet.compression.codec": "zstd"}


def start_spark(config: Config, scratch: Path, log: Path, *, small: bool, reads: bool) -> SparkSession:
    """The Spark session of this process, started on first use with ``scratch`` for its temporary files.

    ``small`` says that the work is less than what Spark's optimising compilers cost, ``reads`` that sources are read
    first, as in a run.

    Under `spark-submit` the master, the driver's address, its memory and its folders are what that was given.

    Raises ResourceError where Java is missing or Spark does not start.
    """
    from pyspark import SparkConf, SparkContext
    from pyspark.errors import PySparkRuntimeError
    from pyspark.sql import SparkSession

    from jobs.scratch import show_life

    # Active or default: which one is active is known to a thread of the JVM, and ours may have got another one.
    with suppress(PySparkRuntimeError):
        return SparkSession.active()
    submitted = "PYSPARK_GATEWAY_PORT" in os.environ  # spark-submit's own, to the Python that it starts
    archive = None if submitted else ClassArchive(config.cache, check_java(), complete=reads)
    shutil.rmtree(scratch, ignore_errors=True)  # a killed run's shuffle files hold text
    scratch.mkdir(parents=True, mode=0o700)
    show_life(scratch, config.state.lease_seconds)
    scratch = plain(scratch)
    log4j = scratch / "log4j2.properties"
    log4j.write_text(_LOG4J)
    local = scratch / "spark"
    # A crash of Java tells of its memory: into the private scratch, and not where the user stands.
    java = f"-XX:ErrorFile={scratch}/java-%p.log -Dlog4j2.configurationFile=file:{log4j} -Dderby.system.home={local}"
    java += f" {archive.options()}" if archive else ""
    quick = small and not submitted and config.spark.master.startswith("local")
    machine = {
        "spark.master": config.spark.master,
        "spark.driver.memory": config.spark.driver_memory,
        "spark.driver.extraJavaOptions": java + " -XX:TieredStopAtLevel=1 -XX:+UseSerialGC" * quick,
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.local.dir": str(local),
    }
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
        **(_SMALL if quick else _LARGE),
    } | config.spark.properties
    if not submitted:
        settings = machine | settings
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ.setdefault("PYSPARK_DRIVER_PYTHON", sys.executable)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    if not _names_in_utf8(os.environ):
        os.environ["LC_ALL"] = "C.UTF-8"  # or Java finds no file whose name is not ASCII
    logging.getLogger("py4j").setLevel(logging.WARNING)  # at debug level it tells every call with its arguments
    builder = SparkSession.builder
    for key, value in settings.items():
        builder = builder.config(key, value)
    # PySpark starts Java with all settings as arguments, which every user of the machine sees. Java is started here
    # with those that are no secret, and is told the others over its own connection.
    at_start = "spark.driver.extraJavaOptions"
    shown = [(k, v) for k, v in settings.items() if k == at_start or not is_secret(k) and masked(v) == v]
    interrupt = signal.getsignal(signal.SIGINT)
    try:
        SparkContext._ensure_initialized(conf=SparkConf(loadDefaults=False).setAll(shown))
        session = builder.getOrCreate()
    except Exception as error:
        raise ResourceError(f"Spark did not start ({type(error).__name__}); see {log}") from None
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, interrupt)  # PySpark's own asks the JVM first, for as long as that takes
    if archive:
        archive.keep(session)
    return session


def _names_in_utf8(environment: Mapping[str, str]) -> bool:
    """Whether a program that goes by the locale writes the names of files in UTF-8, as Python does in any case."""
    locale = environment.get("LC_ALL") or environment.get("LC_CTYPE") or environment.get("LANG") or "C"
    return re.search(r"(?i)utf-?8", locale) is not None


def start_ray(config: Config, scratch: Path) -> None:
    """Connect to Ray, or start one for this process, which spills what is over its memory below ``scratch``.

    Raises ResourceError where it does not start.
    """
    logging.getLogger("ray").setLevel(logging.ERROR)
    import ray

    from jobs.scratch import show_life

    _quiet_data()
    if ray.is_initialized():
        return
    scratch.mkdir(parents=True, exist_ok=True, mode=0o700)
    show_life(scratch, config.state.lease_seconds)
    scratch = plain(scratch)
    started: Future[None] = Future()

    def start() -> None:
        try:
            _init_ray(config, scratch)
            started.set_result(None)
        except BaseException as error:
            started.set_exception(error)
        threading.Event().wait()

    # In a thread that does not end: the kernel ends the processes of a local Ray with the thread that started them.
    threading.Thread(target=start, name="ray", daemon=True).start()
    started.result()


def end_ray() -> None:
    """End this process's Ray, if it has one. Ray's own end, with the interpreter's, waits for messages nobody reads.

    A Ray that it only asked goes on.
    """
    if "ray" in sys.modules:
        import ray

        ray.shutdown()


def _init_ray(config: Config, scratch: Path) -> None:
    import ray

    local = config.ray.address == "local"
    for last in (not local, True):  # on a busy machine Ray's own first process sometimes misses Ray's deadline
        try:
            with _minimal_ray() if local else nullcontext(), ending.kept(signal.SIGTERM):
                ray.init(
                    address=config.ray.address,
                    include_dashboard=False if local else None,
                    object_store_memory=config.ray.object_store_mb * 1_000_000 if local else None,
                    object_spilling_directory=str(scratch) if local else None,
                    log_to_driver=False,
                    logging_level="ERROR",
                )
            return
        except Exception as error:
            if last:
                what = "a Ray of our own did not start" if local else f"Ray at {config.ray.address!r} did not answer"
                cause = f"{type(error).__name__}: {str(error)[:200]}"
                raise ResourceError(f"ray.address: {what} ({cause})") from None
            ray.shutdown()


@contextmanager
def _minimal_ray() -> Iterator[None]:
    """Let Ray start without its dashboard's server, the monitor of its autoscaler and its log reader.

    A Ray of our own is one node, without a dashboard, and hands no logs to the driver. Those three are a seventh of its
    processor time, and the monitor would take a second to end. `ray start` has switches for two of them, which
    `ray.init` does not hand on. The node's agent stays, half as large where what a dashboard needs is not installed, as
    beside ``ray`` alone: that is what it is told.
    """
    from ray._private import node, parameter

    class Params(parameter.RayParams):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, no_monitor=True, include_log_monitor=False, **options)

    dependencies = "ray.dashboard.optional_deps"
    found = sys.modules.pop(dependencies, None)
    # One entry is set and taken back: other threads import meanwhile, and what they have stays.
    sys.modules[dependencies] = None  # type: ignore[assignment]
    try:
        with (
            patch.object(parameter, "RayParams", Params),
            patch.object(node.Node, "start_api_server", lambda *_, **__: None),
        ):
            yield
    finally:
        del sys.modules[dependencies]
        if found is not None:
            sys.modules[dependencies] = found


def _quiet_data() -> None:
    from ray.data import DataContext

    logger = logging.getLogger("ray.data")
    logger.setLevel(logging.ERROR)
    for handler in [h for h in logger.handlers if isinstance(h, logging.StreamHandler)]:
        logger.removeHandler(handler)  # to standard error; what fails is raised, and told there in one line of ours
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
