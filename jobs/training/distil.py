"""A model of fewer layers that gives nearly the vectors of the one that it was made of, at a share of the cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from embedding.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer


def keep_layers(model: SentenceTransformer, count: int) -> None:
    """Leave ``count`` of a transformer's layers, evenly dealt, from the first to the last.

    Raises ConfigError for more than it has, and for a model whose layers are not one list of its own.
    """
    from torch.nn import ModuleList

    first = cast(Any, model[0])
    if not hasattr(first, "model"):
        raise ConfigError("training.layers: the model is no transformer; it has no layers to leave out")
    told = first.model.config
    whole = getattr(told, "num_hidden_layers", 0)
    if not 0 < count <= whole:
        raise ConfigError(f"training.layers: the model has {whole} layers; keep from 1 to that")
    lists = [path for path, one in first.model.named_modules() if isinstance(one, ModuleList) and len(one) == whole]
    outer = [path for path in lists if not any(path.startswith(f"{other}.") for other in lists)]
    if len(outer) != 1 or getattr(told, "layer_types", None) is not None:
        raise ConfigError(f"training.layers: layers of a {told.model_type} cannot be left out")
    above, _, name = outer[0].rpartition(".")
    parent = first.model.get_submodule(above)
    layers = getattr(parent, name)
    step = (whole - 1) / max(1, count - 1)
    setattr(parent, name, ModuleList([layers[round(place * step)] for place in range(count)]))
    told.num_hidden_layers = count


class Distillation:
    """A loss as the library's are: how far the vectors of a batch are from the teacher's, each text by itself."""

    def __init__(self, model: SentenceTransformer, teacher: SentenceTransformer) -> None:
        self._model, self._teacher = model, teacher.eval()

    def __call__(self, features: list[dict[str, torch.Tensor]], _: None) -> torch.Tensor:
        """One less the cosine, on average over all texts of all columns."""
        import torch

        far = []
        for column in features:
            with torch.no_grad():
                wanted = self._teacher(dict(column))["sentence_embedding"]
            far.append(
                1 - torch.nn.functional.cosine_similarity(self._model(dict(column))["sentence_embedding"], wanted)
            )
        return torch.cat(far).mean()
