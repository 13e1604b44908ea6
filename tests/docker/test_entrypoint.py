"""What starts in the images, run as Spark on Kubernetes runs it: its words, its variables, a real driver and executor."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jobs.engines.environment import quiet_engines
from tests.docker.test_docker import DOCKER, DOCKERFILES
from tests.support.ports import free_ports

ENTRYPOINT = DOCKER / "entrypoint.sh"

# A driver whose one executor is who comes: it tells its address, and then what the executor computed.
DRIVER = """
import os, sys
from pyspark.sql import SparkSession
spark = SparkSession.builder.getOrCreate()
context = spark.sparkContext
port = context.getConf().get("spark.driver.port")
print("bound to", context.getConf().get("spark.driver.bindAddress"), flush=True)
print("executors are told", context.getConf().get("spark.executorEnv.SPARK_DRIVER_POD_IP"), flush=True)
print("listens at", port, context.applicationId, flush=True)
found = context.parallelize(range(4), 1).map(lambda n: (os.environ.get("SPARK_EXECUTOR_POD_NAME"), n * n)).collect()
print("found", found, flush=True)
spark.stop()
"""


def environment(**more: str) -> dict[str, str]:
    """Of an image: the environment's programs are on the path, and PYSPARK_PYTHON is set."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SPARK_", "PYSPARK_"))}
    return {**kept, "PATH": path, "PYSPARK_PYTHON": sys.executable, **more}


@contextmanager
def started(*command: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """The entrypoint with a command, killed at the end of the block."""
    process = subprocess.Popen(
        [str(ENTRYPOINT), *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(**variables),
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def line(process: subprocess.Popen[str], start: str) -> str:
    """What follows ``start`` in the first line that begins so."""
    assert process.stdout is not None
    seen: list[str] = []
    for said in process.stdout:
        if said.startswith(start):
            return said.removeprefix(start).strip()
        seen.append(said)
    raise AssertionError("".join(seen)[-2000:])


@pytest.mark.slow
def test_a_driver_and_an_executor_find_each_other_and_compute(tmp_path: Path) -> None:
    """Of a Spark master without workers, so that the executor of the entrypoint is the only one that there is."""
    quiet_engines()
    port, web = map(str, free_ports(2))
    main, properties = tmp_path / "main.py", tmp_path / "spark.properties"
    main.write_text(DRIVER)
    properties.write_text(
        f"spark.master=spark://127.0.0.1:{port}\nspark.ui.enabled=false\nspark.driver.memory=512m\n"
        "spark.driver.host=127.0.0.1\n"
    )
    host = ("--host", "127.0.0.1", "--port", port, "--webui-port", web)
    with started("spark-class", "org.apache.spark.deploy.master.Master", *host) as master:
        deadline = time.monotonic() + 60
        while "I have been elected leader" not in line(master, ""):
            assert time.monotonic() < deadline
        submitted = ("--properties-file", str(properties), "--class", "org.apache.spark.deploy.PythonRunner", str(main))
        with started("driver", *submitted, SPARK_DRIVER_BIND_ADDRESS="127.0.0.1") as driver:
            assert line(driver, "bound to") == "127.0.0.1"
            assert line(driver, "executors are told") == "127.0.0.1"
            listens, application = line(driver, "listens at").split()
            told = {
                "SPARK_DRIVER_URL": f"spark://CoarseGrainedScheduler@127.0.0.1:{listens}",
                "SPARK_EXECUTOR_ID": "7",
                "SPARK_EXECUTOR_CORES": "1",
                "SPARK_EXECUTOR_MEMORY": "512m",
                "SPARK_APPLICATION_ID": application,
                "SPARK_EXECUTOR_POD_IP": "127.0.0.1",
                "SPARK_EXECUTOR_POD_NAME": "pod-7",
                "SPARK_RESOURCE_PROFILE_ID": "0",
                "SPARK_JAVA_OPT_1": "-Dspark.driver.port=1",
                "SPARK_JAVA_OPT_10": f"-Dspark.driver.port={listens}",
                "SPARK_JAVA_OPT_2": "-Dspark.driver.port=2",
            }
            with started("executor", **told):
                assert line(driver, "found") == str([("pod-7", n * n) for n in range(4)])


def test_another_command_is_run_as_it_is() -> None:
    with started("python", "-c", "import sys; print('said', sys.argv[1:])", "a b", "") as process:
        assert line(process, "said") == "['a b', '']"


def test_a_driver_without_an_address_is_an_error_that_names_it() -> None:
    with started("driver") as process:
        assert "SPARK_DRIVER_BIND_ADDRESS" in line(process, str(ENTRYPOINT))
        assert process.wait() != 0


def test_the_images_with_spark_start_by_it() -> None:
    for file in DOCKERFILES:
        said = file.read_text()
        assert ('ENTRYPOINT ["/opt/embedmill/entrypoint.sh"]' in said) == (file.parent.name in ("ray", "spark"))
