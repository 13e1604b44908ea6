"""Amazon SageMaker: an endpoint that takes ``{"inputs": [text, …]}`` and gives a list of vectors."""

from __future__ import annotations

import json
from collections.abc import Sequence

from embedding.encoders.remote import aws
from embedding.encoders.remote.service import Answer, TryAgain
from embedding.encoders.spec import RemoteSettings


class SageMakerService:
    """One endpoint in one region."""

    def __init__(self, settings: RemoteSettings) -> None:
        self.name = f"sagemaker {settings.model}"
        self.texts_at_once = settings.request_texts
        self._endpoint = settings.model
        self._client = aws.client("sagemaker-runtime", settings)

    def close(self) -> None:
        """See Service.close."""
        self._client.close()

    def ask(self, texts: Sequence[str]) -> Answer:
        """See Service.ask."""
        with aws.errors_of(self.name):
            response = self._client.invoke_endpoint(
                EndpointName=self._endpoint,
                Body=json.dumps({"inputs": list(texts)}),
                ContentType="application/json",
                Accept="application/json",
            )
            content = response["Body"].read()
        try:
            return Answer(json.loads(content))
        except ValueError:
            raise TryAgain("an answer that is not JSON") from None
