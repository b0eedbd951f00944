"""Amazon Bedrock, by Converse (docs.aws.amazon.com/bedrock: Converse API).

With AWS_BEARER_TOKEN_BEDROCK set, that key is shown; otherwise requests are signed (SigV4) with
what the standard credential chain finds, through botocore (extra `bedrock`).
"""

import os
import re
from functools import cache
from typing import Any

from msgspec import Struct

from unbroken.errors import AuthenticationFailed, ConfigurationError
from unbroken.providers.base import Prefill, Provider
from unbroken.transport.base import HttpRequest
from unbroken.wire.bedrock_converse.dialect import CODEC

_REGION = re.compile(r"bedrock-runtime(?:-fips)?\.([a-z0-9-]+)\.")


class AwsAuth(Struct, frozen=True):
    """A bearer key, or a signature over the whole request."""

    env: str = "AWS_BEARER_TOKEN_BEDROCK"
    required: bool = False

    def headers(self, key: str, request: HttpRequest) -> dict[str, str]:
        """The headers that show the key, or sign. AuthenticationFailed without credentials."""
        return {"authorization": f"Bearer {key}"} if key else _signed(request)


def _signed(request: HttpRequest) -> dict[str, str]:
    auth, aws, session = _botocore()
    credentials = session.get_credentials()
    if credentials is None:
        missing = AuthenticationFailed("no AWS credentials were found")
        missing.advice = "Set AWS_BEARER_TOKEN_BEDROCK, or AWS_ACCESS_KEY_ID and its secret."
        raise missing
    known = {"content-type": request.headers.get("content-type", "application/json")}
    draft = aws.AWSRequest(request.method, request.url, data=request.body, headers=known)
    region = _region(request.url, session)
    auth.SigV4Auth(credentials.get_frozen_credentials(), "bedrock", region).add_auth(draft)
    return {name.lower(): value for name, value in draft.headers.items() if name not in known}


def _region(url: str, session: Any) -> str:
    found = _REGION.search(url)
    # botocore reads AWS_DEFAULT_REGION and the profile, and not what Lambda and other SDKs set
    told = os.environ.get("AWS_REGION") or session.get_config_variable("region")
    region = found[1] if found else told
    if not region:
        raise ConfigurationError(
            "bedrock needs a region to sign for",
            hint="Set AWS_REGION or AWS_DEFAULT_REGION in the environment.",
        )
    return str(region)


@cache
def _botocore() -> tuple[Any, Any, Any]:
    try:
        import botocore.auth
        import botocore.awsrequest
        import botocore.session
    except ImportError as error:
        raise ConfigurationError(
            "signing for Bedrock needs botocore",
            hint="pip install 'unbroken[bedrock]', or set AWS_BEARER_TOKEN_BEDROCK.",
        ) from error
    return botocore.auth, botocore.awsrequest, botocore.session.Session()


PROVIDER = Provider(
    name="bedrock",
    base_url="https://bedrock-runtime.{AWS_REGION|AWS_DEFAULT_REGION}.amazonaws.com",
    base_url_env="AWS_ENDPOINT_URL_BEDROCK_RUNTIME",
    path="/model/{model}/converse-stream",
    whole_path="/model/{model}/converse",
    models_path="",
    auth=AwsAuth(),
    codec=CODEC,
    # Claude up to 4.5, as at Anthropic itself; names may begin with a region (us., eu., global.)
    prefill=Prefill(
        (
            "*anthropic.claude-3*",
            "*anthropic.claude-*-4-1-*",
            "*anthropic.claude-*-4-5-*",
            "*anthropic.claude-*-4-2025*",
        ),
        keeps_space=False,
    ),
)
