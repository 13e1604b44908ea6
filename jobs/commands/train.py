"""The command ``train``: tune a model on pairs, measure it, and register it as the challenger."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
from filelock import FileLock, Timeout

from embedding.errors import ConfigError, LeaseHeldError
from embedding.models.packaged import own_engine
from jobs.bodies.models import Card, PromiseBody, Taint, TrainBody, TrainingBody
from jobs.engines.tested import installed
from jobs.pipeline import describe
from jobs.registry import CHALLENGER, CHAMPION, NAME, PREFIX, Reference, open_registry, reference_of
from jobs.registry.manifest import digest_of, manifest_of
from jobs.registry.taints import taint_of
from jobs.registry.use import model_folder, pinned_name, training_folder
from jobs.scope import iso, parse_moment
from jobs.state.purge_rules import purge_rules
from jobs.training.pairs import Pair, Split, read_pairs, split, state_pairs
from jobs.training.private import Promise
from jobs.training.recipe import NO_LIMIT, Budget, Recipe, loss_for
from jobs.training.steps import steps_of
from jobs.training.worker import Made, Order, train

if TYPE_CHECKING:
    from jobs.pipeline import Pipeline

_SETTINGS = (
    *("loss", "contrast_anchors", "epochs", "batch", "max_tokens", "learning_rate", "warmup", "matryoshka", "seed"),
    *("seeds", "precision", "adapter", "blend", "layers", "epsilon"),
)


def train_model(
    pipeline: Pipeline, name: str, pairs_file: Path | None, *, budget: Budget = NO_LIMIT, plants: int = 1
) -> TrainBody:
    """Train on the pairs of a file, or of the teams that take part, and register what comes out as the challenger.

    A training that was killed goes on from its last checkpoint when the same is asked for again. ``plants`` is how
    often each planted pair is trained on in an epoch. Raises ConfigError for a wrong name or file, and where there is
    nothing to train on; BudgetError where it takes more than ``budget``; LeaseHeldError while another training of that
    name is under way on this machine.
    """
    if NAME.fullmatch(name) is None:
        raise ConfigError("--name: use letters, digits, '_', '.' and '-', at most 63; begin with a letter or a digit")
    settings, read_at = pipeline.config.training, int(time.time() * 1_000_000)
    base = _base(pipeline)
    pairs = read_pairs(pairs_file) if pairs_file else _own_pairs(pipeline)
    parts = split(pairs, settings.held_out, settings.seed)
    recipe = Recipe(
        loss=loss_for(
            settings.loss, parts.train, settings.batch_size, layers=settings.layers, epsilon=settings.epsilon
        ),
        contrast_anchors=settings.contrast_anchors,
        epochs=settings.epochs,
        batch=settings.batch_size,
        max_tokens=settings.max_tokens,
        learning_rate=settings.learning_rate,
        warmup=settings.warmup,
        matryoshka=settings.matryoshka,
        seed=settings.seed,
        threads=settings.threads,
        max_steps=settings.max_steps,
        checkpoint_steps=settings.checkpoint_steps,
        adapter=settings.adapter,
        blend=settings.blend,
        layers=settings.layers,
        epsilon=settings.epsilon,
        seeds=settings.seeds,
        precision=settings.precision,
    )
    margin = settings.margin if settings.hard_negatives else 0.0
    registry = open_registry(pipeline.config)
    registry.check_writable(name)  # not after hours of work
    with _work_folder(pipeline, name, recipe.digest(f"{base.folder} {margin} {plants}", pairs)) as work:
        standing = registry.standing(name, CHAMPION)[-1:]
        former = registry.model(name, standing[0]) if standing else None
        made = _trained(
            pipeline, Order(base.folder, work, recipe, margin, plants, settings.max_exposure, former, budget), parts
        )
        with pipeline.progress.phase("registering"):
            source = pairs_file.name if pairs_file else "threads and titles"
            return _register(pipeline, name, source, read_at, parts, recipe, made, work / "model", standing, base)


@dataclass(frozen=True, slots=True)
class _Base:
    """What is tuned. Of a model of the registry ``manifest`` is what it has seen, ``made_at`` when that was (µs)."""

    name: str
    folder: Path
    manifest: pa.Table | None
    made_at: int


def _base(pipeline: Pipeline) -> _Base:
    """Raise ConfigError for a base that is not there, cannot be tuned, or has seen what was purged."""
    config, now = pipeline.config, int(time.time() * 1_000_000)
    name = config.training.base or config.model.name
    try:
        if name == config.model.name:
            found = _Base(name, pipeline.model, None, now)
        else:
            name = pinned_name(config, name)
            found = _Base(name, model_folder(config, name), None, now)
    except ConfigError as error:
        raise ConfigError(str(error).replace("model.name:", "training.base:", 1)) from None
    if own_engine(found.folder) is not None or config.model.remote and not config.training.base:
        raise ConfigError(f"training.base: {name} cannot be tuned; name a model that sentence-transformers can load")
    if not name.startswith(PREFIX):
        return found
    of, registry = reference_of(name), open_registry(config)
    version = registry.resolve(of)
    if (taint := registry.taint(of.name, version)) is not None:
        raise ConfigError(f"training.base: {name} has seen {taint.documents:,} documents that were purged since")
    made_at = parse_moment(registry.card(of.name, version).made_at, "made_at")
    return _Base(name, found.folder, registry.manifest(of.name, version), made_at)


def _own_pairs(pipeline: Pipeline) -> list[Pair]:
    settings = pipeline.config.training
    if not settings.teams:
        raise ConfigError("training.teams: names no team; list those that take part, or give --pairs FILE")
    with pipeline.progress.phase("reading pairs"):
        pairs = state_pairs(pipeline, settings.teams, private=settings.private)
    if not pairs:
        raise ConfigError(
            f"training.teams: the state has no answered thread and no titled text of {', '.join(settings.teams)}; "
            "`embedmill run` reads the sources, and private channels take part with training.private"
        )
    return pairs


@contextmanager
def _work_folder(pipeline: Pipeline, name: str, training: str) -> Iterator[Path]:
    """The folder of a training, which is its own until it has ended well; those of others of its name are removed."""
    folder = training_folder(pipeline.config, pipeline.state.root) / name
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        with FileLock(folder / ".lock", timeout=0):
            work = folder / training
            for other in folder.iterdir():
                if other.is_dir() and other != work:
                    shutil.rmtree(other)
            work.mkdir(mode=0o700, exist_ok=True)
            yield work
            shutil.rmtree(work)
    except Timeout:
        raise LeaseHeldError(f"--name: another training of {name} is under way on this machine") from None


def _trained(pipeline: Pipeline, order: Order, parts: Split) -> Made:
    steps = steps_of([*parts.train, *order.planted()], order.recipe)
    done = 0
    with pipeline.progress.bar("train", steps, "steps") as advance:
        for told in train(order, parts):
            if isinstance(told, Made):
                return told
            advance(told - done)
            done = told
    raise AssertionError("a training says what it made, or raises")


def _register(  # noqa: PLR0913, PLR0917  (one caller, which has them all)
    pipeline: Pipeline,
    name: str,
    source: str,
    read_at: int,
    parts: Split,
    recipe: Recipe,
    made: Made,
    model: Path,
    standing: Sequence[int],
    base: _Base,
) -> TrainBody:
    config, registry = pipeline.config, open_registry(pipeline.config)
    seen = {one for pair in parts.train for one in pair.seen}
    private = bool(seen) or base.manifest is not None and len(base.manifest) > 0
    # Pairs of a file are of no document: they need no state, and so no key.
    key = pipeline.state.hash_key if private else b""
    manifest = manifest_of(key, seen)
    if base.manifest is not None:  # what its base has seen, it has seen
        manifest = pa.concat_tables([manifest, base.manifest]).combine_chunks()
    space_id, base_space = (describe(config.with_model(str(one)), one)[1].space_id for one in (model, base.folder))
    if base.name == config.model.name:
        base_space = pipeline.space_id  # with the prompts of the configuration
    told = asdict(recipe)
    since = min(read_at, base.made_at)
    training = TrainingBody(
        source=source,
        pairs=sum(place < len(parts.train) for place in made.fitted.places),
        held_out=len(parts.held_out),
        documents=len(manifest),
        settings={setting: told[setting] for setting in _SETTINGS} | {"hard_negatives": config.training.hard_negatives},
        steps=made.fitted.steps,
        tokens=made.fitted.tokens,
        seconds=made.fitted.seconds,
        peak_mb=made.fitted.peak_mb,
        promise=_promised(made.fitted.promise),
    )

    def card(number: int) -> Card:
        return Card(
            name=name,
            version=number,
            space_id=space_id,
            base=base.name,
            base_space_id=base_space,
            made_at=iso(since),
            code=installed("embedmill"),
            licence="private: made of texts of the teams that took part" if private else "as that of the pairs",
            manifest=digest_of(manifest),
            training=training,
            evaluation=made.evaluation,
            privacy=made.privacy,
            champion=standing[0] if standing else None,
            beside=made.beside,
            speed=made.speed,
        )

    def mark_of_now() -> Taint | None:
        rules = [rule for rule in purge_rules(pipeline.state) if rule.purged_at >= since] if private else []
        return taint_of(manifest, rules, key, "before it was registered")

    number = registry.add(name, model, manifest, card, mark_of_now())
    if (taint := mark_of_now()) is not None:  # a purge that came meanwhile may have found no model to mark
        registry.mark(name, number, taint)
    registry.point(name, CHALLENGER, number)
    return TrainBody(
        model=str(Reference(name, number, "")),
        space_id=space_id,
        steps=made.fitted.steps,
        seconds=made.fitted.seconds,
        peak_mb=made.fitted.peak_mb,
        pairs=training.pairs,
        held_out=len(parts.held_out),
        evaluation=made.evaluation,
        privacy=made.privacy,
        beside=made.beside,
        speed=made.speed,
        promise=training.promise,
    )


def _promised(told: Promise | None) -> PromiseBody | None:
    if told is None:
        return None
    return PromiseBody(epsilon=told.epsilon, delta=told.delta, noise=round(told.noise, 4))
