"""Amazon Bedrock: the request shapes of Titan Text Embeddings V2 and of Cohere Embed v3.

Shapes from the AWS documentation of InvokeModel's model parameters.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from embedding.encoders.remote import aws
from embedding.encoders.remote.service import Answer, TryAgain
from embedding.encoders.spec import RemoteSettings
from embedding.errors import ConfigError
from embedding.models.prompts import Purpose

_COHERE_TEXTS = 96
_PURPOSES = {"document": "search_document", "query": "search_query"}


def titan_body(text: str, dim: int) -> dict[str, object]:
    """What Titan Text Embeddings V2 is asked, one text at a time, online and in a batch."""
    return {"inputText": text, "dimensions": dim, "normalize": True}


class BedrockService:
    """One model in one region. Raises ConfigError for a model that is not known."""

    def __init__(self, settings: RemoteSettings, purpose: Purpose) -> None:
        self.name = f"bedrock {settings.model}"
        self._model = settings.model
        self._dim = settings.dim
        self._purpose = _PURPOSES[purpose]
        # A cross-region profile puts its region in front: "eu.cohere.embed-…".
        self._cohere = "cohere.embed" in settings.model
        if not self._cohere and "amazon.titan-embed-text-v2" not in settings.model:
            raise ConfigError(
                f"model.remote.model: {settings.model!r} is not known; use amazon.titan-embed-text-v2:0 "
                "or a cohere.embed model"
            )
        self.texts_at_once = _COHERE_TEXTS if self._cohere else 1
        self._client = aws.client("bedrock-runtime", settings)

    def close(self) -> None:
        """See Service.close."""
        self._client.close()

    def ask(self, texts: Sequence[str]) -> Answer:
        """See Service.ask."""
        if self._cohere:
            body: dict[str, object] = {"texts": list(texts), "input_type": self._purpose, "truncate": "NONE"}
        else:
            body = titan_body(texts[0], self._dim)
        with aws.errors_of(self.name):
            response = self._client.invoke_model(
                modelId=self._model, body=json.dumps(body), contentType="application/json", accept="application/json"
            )
            content = response["body"].read()
        try:
            found = json.loads(content)
            if not self._cohere:
                return Answer([found["embedding"]], int(found["inputTextTokenCount"]))
            billed = response["ResponseMetadata"]["HTTPHeaders"].get("x-amzn-bedrock-input-token-count")
            return Answer(found["embeddings"], int(billed) if billed else None)
        except (ValueError, KeyError, TypeError):
            raise TryAgain("an answer of another shape") from None
