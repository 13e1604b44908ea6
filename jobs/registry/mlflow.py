"""A registry on an MLflow server: registered models, their versions and aliases, as its own page shows them.

A version's files are artifacts of a run of the experiment ``embedmill``, and are all there before the version is: it is
whole or not there. What is read often stands in the version's tags. Models of others on that server are not looked at.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock

from embedding.atomic_file import flush
from embedding.errors import ConfigError, ResourceError
from embedding.models.space import short_hash
from jobs.bodies.models import Card, Taint
from jobs.registry.base import Registry
from jobs.registry.mlflow_calls import all_pages, asking, open_client, or_none

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

EXPERIMENT = "embedmill"
# Of a registered model: that it is ours, and what each alias has stood for. Of a version: its card and its mark.
_OURS, _HISTORY, _CARD, _TAINT = "embedmill.model", "embedmill.history.{alias}", "embedmill.card", "embedmill.tainted"
_MODEL, _MANIFEST = "model", "manifest.parquet"
_SERVED = "mlflow-artifacts:"  # files that the server hands out, whatever it keeps them in
_ABANDONED = 24 * 3_600_000  # ms after which files of no version are what a killed command left


class MlflowRegistry(Registry):
    """The registry of the server at ``uri``; models that are used here are kept below ``cache``, each once.

    Who may use the server is said by MLflow's own variables, ``MLFLOW_TRACKING_TOKEN`` and the like.
    """

    def __init__(self, uri: str, cache: Path) -> None:
        self.where, self._cache = uri, cache / short_hash([uri])
        self._held: MlflowClient | None = None

    # -- reading -----------------------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        """See ``Registry``."""
        with self._asking("list the models"):
            found = all_pages(self._client().search_registered_models, filter_string=f"tags.`{_OURS}` = 'yes'")
        return sorted(one.name for one in found if self.versions(one.name))

    def versions(self, name: str) -> list[int]:
        """See ``Registry``."""
        with self._asking(f"list the versions of {name}"):
            found = all_pages(self._client().search_model_versions, filter_string=f"name = '{name}'")
        return sorted(int(one.version) for one in found if _CARD in one.tags)

    def standing(self, name: str, alias: str) -> list[int]:
        """See ``Registry``. The alias itself counts, whoever moved it; what it stood for before is in a tag."""
        with self._asking(f"look up {alias} of {name}"):
            model = or_none(lambda: self._client().get_registered_model(name))
        now = model and model.aliases.get(alias)
        if not now:
            return []
        version, there = int(now), set(self.versions(name))
        if version not in there:  # of another tool
            return []
        history = [int(one) for one in model.tags.get(_HISTORY.format(alias=alias), "").split()]
        former = history[: history.index(version)] if version in history else history
        return [one for one in (*former, version) if one in there]

    def model(self, name: str, version: int) -> Path:
        """See ``Registry``. It is fetched once, and what is kept here of versions that are gone goes."""
        run_id = self._run_of(name, version)
        folder = self._cache / name
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with FileLock(folder / ".lock"):
            self._forget(folder, name)
            kept = folder / f"{version}-{run_id}"
            if not kept.is_dir():
                with tempfile.TemporaryDirectory(dir=folder) as part:
                    try:
                        fetched = self._fetch(run_id, _MODEL, part, f"{name}/{version}")
                    except FileNotFoundError as error:
                        raise ResourceError(str(error)) from None
                    for file in [*fetched.rglob("*"), fetched]:
                        flush(file)
                    fetched.rename(kept)
                    flush(folder)
        return kept

    def card(self, name: str, version: int) -> Card:
        """See ``Registry``. Its number is the server's."""
        said = self._version(name, version).tags[_CARD]
        try:
            return Card.model_validate_json(json.dumps(json.loads(said) | {"version": version}), strict=False)
        except ValueError as error:
            fault = f"the card of {name}/{version} cannot be read ({type(error).__name__})"
            raise ResourceError(f"registry.uri: {self.where}: {fault}") from None

    def manifest(self, name: str, version: int) -> pa.Table:
        """See ``Registry``."""
        run_id = self._run_of(name, version)
        with tempfile.TemporaryDirectory() as part:
            return pq.read_table(self._fetch(run_id, _MANIFEST, part, f"{name}/{version}"), memory_map=False)

    def taint(self, name: str, version: int) -> Taint | None:
        """See ``Registry``."""
        said = self._version(name, version).tags.get(_TAINT)
        return None if said is None else Taint.model_validate_json(said)

    # -- writing -----------------------------------------------------------------------------------------------------

    def check_writable(self, name: str) -> None:
        """See ``Registry``. Raises ConfigError for a name that others have there, and where it serves no files."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        with self._asking(f"look up {name}"):
            model = or_none(lambda: self._client().get_registered_model(name))
            found = self._client().get_experiment_by_name(EXPERIMENT)
        if model is not None and _OURS not in model.tags:
            raise ConfigError(f"--name: {self.where} has a model {name} that is not embedmill's; choose another name")
        if found is not None and not found.artifact_location.startswith(_SERVED):
            raise ConfigError(
                f"registry.uri: {self.where}: the experiment {EXPERIMENT} keeps its files where only its own machine "
                "sees them; delete it, and one is made whose files the server serves"
            )
        with self._asking("reach its files (mlflow server --serve-artifacts)"):
            get_artifact_repository(f"{_SERVED}/", tracking_uri=self.where).list_artifacts()

    def add(
        self, name: str, model: Path, manifest: pa.Table, card: Callable[[int], Card], taint: Taint | None = None
    ) -> int:
        """See ``Registry``. The version is made last, with all of its tags, by one request."""
        self.check_writable(name)
        said = card(0)
        tags = {
            _CARD: json.dumps({key: value for key, value in json.loads(said.to_json()).items() if key != "version"}),
            "space_id": said.space_id,
            "base": said.base,
            "manifest": said.manifest,
            "verdict": said.evaluation.verdict,
            "exposure": f"{said.privacy.exposure:.2f}",
            "code": said.code,
            "licence": said.licence,
        } | ({_TAINT: taint.to_json()} if taint is not None else {})
        with self._asking(f"register {name}"):
            client = self._client()
            experiment = self._experiment()
            self._clear(experiment, name)
            run = client.create_run(experiment, run_name=name, tags={_OURS: name})
            client.log_artifacts(run.info.run_id, str(model), _MODEL)
            with tempfile.TemporaryDirectory() as part:
                pq.write_table(manifest, Path(part, _MANIFEST))
                client.log_artifacts(run.info.run_id, part)
            client.set_terminated(run.info.run_id)
            if or_none(lambda: client.get_registered_model(name)) is None:
                client.create_registered_model(name, tags={_OURS: "yes"})
            source = f"{run.info.artifact_uri}/{_MODEL}"
            made = client.create_model_version(name, source, run.info.run_id, tags=tags, await_creation_for=0)
            return int(made.version)

    def point(self, name: str, alias: str, version: int) -> None:
        """See ``Registry``. What it stood for is noted first: until the alias moves, that changes nothing."""
        former = [one for one in self.standing(name, alias) if one != version]
        with self._asking(f"let {alias} stand for {name}/{version}"):
            key, history = _HISTORY.format(alias=alias), " ".join(map(str, (*former, version)))
            self._client().set_registered_model_tag(name, key, history)
            self._client().set_registered_model_alias(name, alias, str(version))

    def step_back(self, name: str, alias: str) -> None:
        """See ``Registry``."""
        former = self.standing(name, alias)[:-1]
        with self._asking(f"let {alias} of {name} stand for what it was"):
            if former:
                self._client().set_registered_model_alias(name, alias, str(former[-1]))
            else:
                self._client().delete_registered_model_alias(name, alias)

    def mark(self, name: str, version: int, taint: Taint) -> None:
        """See ``Registry``."""
        if self.taint(name, version) is None:
            with self._asking(f"mark {name}/{version}"):
                self._client().set_model_version_tag(name, str(version), _TAINT, taint.to_json())

    def remove(self, name: str, version: int) -> None:
        """See ``Registry``. Its files go first: a version that is left of a removal that was killed is marked still."""
        run_id = self._run_of(name, version)
        with self._asking(f"remove {name}/{version}"):
            for alias, now in self._client().get_registered_model(name).aliases.items():
                if int(now) == version:  # else the server would let it stand for nothing
                    self.step_back(name, alias)
            run = or_none(lambda: self._client().get_run(run_id))
            if run is not None:
                self._drop(run)
            self._client().delete_model_version(name, str(version))
        folder = self._cache / name
        if folder.is_dir():
            with FileLock(folder / ".lock"):
                self._forget(folder, name)

    # -- the server --------------------------------------------------------------------------------------------------

    def _client(self) -> MlflowClient:
        if self._held is None:
            self._held = open_client(self.where)
        return self._held

    def _asking(self, what: str) -> AbstractContextManager[None]:
        self._client()
        return asking(self.where, what)

    def _version(self, name: str, version: int) -> ModelVersion:
        with self._asking(f"look up {name}/{version}"):
            return self._client().get_model_version(name, str(version))

    def _run_of(self, name: str, version: int) -> str:
        """Of the version's files."""
        return str(self._version(name, version).run_id)

    def _fetch(self, run_id: str, path: str, into: str, model: str) -> Path:
        """Fetch an artifact into a folder. Raises FileNotFoundError where the server has none.

        The client says that of a server that goes away meanwhile, too (`download_artifacts`): so its parts are used.
        """
        from mlflow.exceptions import MlflowException

        with self._asking(f"fetch {model}"):
            run = or_none(lambda: self._client().get_run(run_id))
            files = run and self._files(run)
            if files is not None and path in {one.path for one in files.list_artifacts()}:
                try:
                    return Path(files.download_artifacts(path, into))
                except MlflowException:
                    self._client().get_run(run_id)  # the same error whatever went wrong: is the server there?
                    raise
        raise FileNotFoundError(f"registry.uri: {self.where}: {model} has no {path}")

    def _files(self, run: Run) -> Any:
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        return get_artifact_repository(run.info.artifact_uri, tracking_uri=self.where)

    def _experiment(self) -> str:
        client = self._client()
        found = client.get_experiment_by_name(EXPERIMENT)
        if found is not None:
            return str(found.experiment_id)
        return client.create_experiment(EXPERIMENT, artifact_location=f"{_SERVED}/{EXPERIMENT}")

    def _clear(self, experiment: str, name: str) -> None:
        """Remove the files of versions that killed commands did not come to make."""
        client = self._client()
        runs = all_pages(client.search_runs, experiment_ids=[experiment], filter_string=f"tags.`{_OURS}` = '{name}'")
        for run in runs:
            if run.info.start_time >= time.time() * 1_000 - _ABANDONED:
                continue
            if not client.search_model_versions(f"run_id = '{run.info.run_id}'"):  # of whatever name by now
                self._drop(run)

    def _drop(self, run: Run) -> None:
        self._files(run).delete_artifacts()
        self._client().delete_run(run.info.run_id)

    def _forget(self, folder: Path, name: str) -> None:
        """Remove what this machine keeps of versions that the server has no more."""
        there = set(self.versions(name))
        for kept in folder.iterdir():
            if kept.is_dir() and (not kept.name[0].isdigit() or int(kept.name.split("-")[0]) not in there):
                shutil.rmtree(kept)
