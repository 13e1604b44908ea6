"""The private parts of pymilvus and Milvus Lite that ``indexers.milvus.compat`` uses are there, each with its name."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from pymilvus import MilvusClient


def _lite() -> tuple[Any, str, str]:
    from milvus_lite.engine import collection, compaction
    from milvus_lite.server_manager import ServerManager

    return ServerManager, inspect.getsource(collection.Collection), inspect.getsource(compaction.CompactionManager)


@pytest.mark.parametrize("name", ["_get_connection", "_generate_call_context"])
def test_client_has_the_method(name: str) -> None:
    assert callable(getattr(MilvusClient, name, None)), f"pymilvus.MilvusClient.{name} is gone"


@pytest.mark.parametrize("method, parameter", [("batch_insert", "insert_param"), ("upsert", "upsert_param")])
def test_handler_takes_an_encoded_request(method: str, parameter: str) -> None:
    from pymilvus.client.grpc_handler import GrpcHandler

    assert callable(getattr(GrpcHandler, method, None)), f"GrpcHandler.{method} is gone"
    assert f'"{parameter}"' in inspect.getsource(GrpcHandler), f"GrpcHandler.{method} takes no {parameter} any more"


def test_flush_can_be_left_unawaited() -> None:
    from pymilvus.client.grpc_handler import GrpcHandler

    assert '"_async"' in inspect.getsource(GrpcHandler.flush), "GrpcHandler.flush knows no _async any more"


def test_status_has_its_code() -> None:
    from pymilvus.client.types import Status

    assert isinstance(getattr(Status, "CONNECT_FAILED", None), int), "Status.CONNECT_FAILED is gone"


@pytest.mark.parametrize("message", ["UpsertRequest", "InsertRequest"])
def test_generated_requests_are_there(message: str) -> None:
    from pymilvus.grpc_gen import milvus_pb2

    fields = getattr(milvus_pb2, message).DESCRIPTOR.fields_by_name
    assert {"collection_name", "fields_data", "num_rows"} <= set(fields), f"milvus_pb2.{message} has other fields"


@pytest.mark.parametrize("field", ["float_vector", "float16_vector", "dim"])
def test_generated_vectors_are_there(field: str) -> None:
    from pymilvus.grpc_gen import schema_pb2

    assert field in schema_pb2.VectorField.DESCRIPTOR.fields_by_name, f"schema_pb2.VectorField.{field} is gone"


@pytest.mark.parametrize("name", ["start_and_get_uri", "release_server", "_servers"])
def test_lite_manages_its_servers(name: str) -> None:
    assert name in inspect.getsource(_lite()[0]), f"milvus_lite ServerManager.{name} is gone"


@pytest.mark.parametrize(
    "name",
    [
        "self._compaction_mgr =",
        "self._manifest =",
        "self._delta_index",
        "self._maintenance_lock",
        "def data_dir",
        "def _wait_for_bg(",
        "def _refresh_segment_cache(",
        "def _cleanup_orphan_index_files(",
        "def _ensure_loaded_segments_indexed(",
    ],
)
def test_lite_collection_has_the_steps_of_a_compaction(name: str) -> None:
    assert name in _lite()[1], f"milvus_lite Collection: no {name!r} any more"


@pytest.mark.parametrize("name, parameters", [("_compact_files", 5), ("_gc_tombstones", 2)])
def test_lite_compaction_takes_what_it_is_given(name: str, parameters: int) -> None:
    from milvus_lite.engine.compaction import CompactionManager

    method = getattr(CompactionManager, name, None)
    assert method is not None, f"milvus_lite CompactionManager.{name} is gone"
    assert len(inspect.signature(method).parameters) >= parameters + 1, (
        f"CompactionManager.{name} takes other arguments"
    )
