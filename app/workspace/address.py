"""What does a store's address name, and whose client opens it? Bucket, key, endpoint; credentials are never in it.

    s3://bucket/key?region=eu-west-1
    s3://bucket/key?endpoint_override=localhost:9000&scheme=http
    gs://bucket/key                     gs://anonymous@bucket/key without credentials
    abfss://container@account/key       the account with or without .dfs.core.windows.net

Keys stand as they are: nothing is percent-encoded. Credentials come from each cloud's usual environment.
"""

import os
import re
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

import pyarrow.fs as pafs
from obstore.store import AzureStore, GCSStore, S3Store

from app.types import UserError

if TYPE_CHECKING:
    from obstore.store import AzureConfig, ClientConfig, GCSConfig, RetryConfig, S3Config

Client = S3Store | GCSStore | AzureStore

SCHEMES = {"s3": "s3", "gs": "gs", "gcs": "gs", "abfs": "abfss", "abfss": "abfss"}
"""What may stand before ://, and the cloud that it means."""

ALLOWED = "allowed: a path, file:///, s3://, gs://, abfss://"

CREDENTIALS = {
    "s3": "$AWS_ACCESS_KEY_ID and $AWS_SECRET_ACCESS_KEY, a web identity, or the role of container or instance",
    "gs": "$GOOGLE_APPLICATION_CREDENTIALS, or the service account of the machine",
    "abfss": "$AZURE_STORAGE_ACCOUNT_KEY, $AZURE_CLIENT_ID with its secret or token file, or a managed identity",
}
"""Where each cloud's credentials come from, in words."""

_OPTIONS = {
    "s3": ("region", "endpoint_override", "scheme"),
    "gs": ("endpoint_override", "scheme"),
    "abfss": ("endpoint_override", "scheme"),
}
_ENDPOINTS = {
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
    "gs": ("STORAGE_EMULATOR_HOST",),
    "abfss": (),
}
_ADDRESS = re.compile(
    r"(?P<scheme>\w+)://(?:(?P<before>[^/?@]*)@)?(?P<host>[^/?@]+)(?:/(?P<key>[^?]*))?(?:\?(?P<query>.*))?"
)
_ONCE: "RetryConfig" = {"max_retries": 0}  # whoever calls knows how long to try, and says so in the log
_ARROW_ATTEMPTS = 9  # with Arrow's growing waits, about a minute
_ANONYMOUS = '{"private_key":"","private_key_id":"","client_email":"","disable_oauth":true}'


@dataclass(frozen=True)
class Address:
    """A key in a bucket (Azure: container of an `account`), with its endpoint (a URL) where it is not the cloud's own."""

    cloud: str
    bucket: str
    key: str
    account: str = ""
    anonymous: bool = False
    region: str | None = None
    endpoint: str | None = None

    @property
    def name(self) -> str:
        """What stands in messages: it holds no option and nothing of a credential."""
        return f"{self.cloud}://{self.bucket}{f'@{self.account}' if self.account else ''}/{self.key}"

    @property
    def server(self) -> str:
        """Who is spoken to, in words."""
        return self.endpoint or {"s3": "Amazon S3", "gs": "Google Cloud Storage", "abfss": "Azure"}[self.cloud]


def split_scheme(uri: str) -> tuple[str | None, str]:
    """Return scheme and rest of a URI; no scheme for a path."""
    scheme, found, rest = uri.partition("://")
    return (scheme.lower(), rest) if found else (None, uri)


def parse(uri: str) -> Address:
    """Take a store's address apart.

    Raises UserError for a malformed address, an unknown option, and a credential in the address.
    """
    shown = without_secrets(uri)
    match = _ADDRESS.fullmatch(uri)
    if match is None:
        raise UserError(f"{shown!r} cannot be opened: Missing bucket name; allowed: {_form(uri)}")
    cloud = SCHEMES[match["scheme"].lower()]
    before, host, key = match["before"], match["host"], (match["key"] or "").strip("/")
    if before is not None and (cloud == "s3" or ":" in before or (cloud == "gs" and before != "anonymous")):
        raise UserError(f"{shown!r} holds a credential, which would be logged; allowed: {CREDENTIALS[cloud]}")
    options = dict(parse_qsl(match["query"] or "", keep_blank_values=True))
    for name in options:
        if name not in _OPTIONS[cloud]:
            raise UserError(f"{shown!r}: found option {name!r}, allowed: {', '.join(_OPTIONS[cloud])}")
    scheme = options.get("scheme", "https")
    if scheme not in ("http", "https"):
        raise UserError(f"{shown!r}: found scheme {scheme!r}, allowed: http, https")
    endpoint = f"{scheme}://{options['endpoint_override']}" if "endpoint_override" in options else _endpoint(cloud)
    if cloud == "abfss":
        account = host.partition(".")[0]
        if before is None:
            raise UserError(f"{shown!r} names no container; allowed: {_form(uri)}")
        return Address(cloud, before, key, account, endpoint=endpoint and f"{endpoint}/{account}")
    region = options.get("region") or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if cloud == "s3" and region is None and endpoint is not None:
        region = "us-east-1"  # what servers other than Amazon's take, or pass over
    return Address(cloud, host, key, "", before is not None, region if cloud == "s3" else None, endpoint)


def without_secrets(uri: str) -> str:
    """Return an address for a message: without options, and without what may be a password."""
    return re.sub(r"(?<=://)[^/@]*:[^/@]*@", "***@", uri).partition("?")[0]


def client(address: Address, timeout: float) -> Client:
    """Return the client of an address's bucket; a request of it takes at most `timeout` seconds and is sent once."""
    return _client(_bucket(address), timeout, _environment())


def arrow(address: Address) -> tuple[pafs.FileSystem, str]:
    """Return Arrow's file system for an address, and the path in it: for reading columns out of large files."""
    return _filesystem(_bucket(address), _environment()), f"{address.bucket}/{address.key}".rstrip("/")


def _form(uri: str) -> str:
    forms = {"s3": "s3://bucket/folder", "gs": "gs://bucket/folder", "abfss": "abfss://container@account/folder"}
    return forms[SCHEMES[uri.partition("://")[0].lower()]]


def _endpoint(cloud: str) -> str | None:
    for name in _ENDPOINTS[cloud]:
        if found := os.environ.get(name):
            return (found if "://" in found else f"http://{found}").rstrip("/")
    return None


def _bucket(address: Address) -> Address:
    region = address.region
    if address.cloud == "s3" and region is None:
        region = _region(address.bucket)
    return Address(address.cloud, address.bucket, "", address.account, address.anonymous, region, address.endpoint)


@lru_cache(maxsize=16)
def _region(bucket: str) -> str:
    try:
        region: str = pafs.resolve_s3_region(bucket)
    except (OSError, ValueError):
        raise UserError(
            f"the region of s3://{bucket} cannot be found out; allowed: $AWS_REGION, or ?region= in the address"
        ) from None
    return region


def _environment() -> tuple[tuple[str, str], ...]:
    """Return what clients are made from besides the address: changed credentials need a new one."""
    return tuple(sorted((k, v) for k, v in os.environ.items() if k.startswith(("AWS_", "GOOGLE_", "AZURE_"))))


@lru_cache(maxsize=16)
def _client(bucket: Address, timeout: float, _: tuple[tuple[str, str], ...]) -> Client:
    plain = (bucket.endpoint or "").startswith("http://")
    options: ClientConfig = {
        "allow_http": plain,
        "connect_timeout": timedelta(seconds=3),
        "read_timeout": timedelta(seconds=15),
        "timeout": timedelta(seconds=timeout),
    }
    where = bucket.endpoint
    if bucket.cloud == "s3":
        s3: S3Config = {"endpoint": where} if where else {}
        return S3Store(bucket.bucket, config=s3, region=bucket.region, client_options=options, retry_config=_ONCE)
    if bucket.cloud == "gs":
        gs: GCSConfig = {"base_url": where} if where else {}
        if bucket.anonymous:
            gs["service_account_key"] = _ANONYMOUS
        return GCSStore(bucket.bucket, config=gs, client_options=options, retry_config=_ONCE)
    azure: AzureConfig = {"account_name": bucket.account}
    if where:
        azure["endpoint"] = where
    return AzureStore(bucket.bucket, config=azure, client_options=options, retry_config=_ONCE)


@lru_cache(maxsize=16)
def _filesystem(bucket: Address, environment: tuple[tuple[str, str], ...]) -> pafs.FileSystem:
    scheme, _, host = (bucket.endpoint or "https://").partition("://")
    if bucket.cloud == "s3":
        return pafs.S3FileSystem(
            region=bucket.region,
            scheme=scheme,
            endpoint_override=host or None,
            connect_timeout=3,
            request_timeout=30,
            retry_strategy=pafs.AwsStandardS3RetryStrategy(max_attempts=_ARROW_ATTEMPTS),
        )
    if bucket.cloud == "gs":
        return pafs.GcsFileSystem(
            anonymous=bucket.anonymous,
            scheme=scheme,
            endpoint_override=host or None,
            retry_time_limit=timedelta(minutes=1),
        )
    where = {}
    if host:
        authority = host.partition("/")[0]
        where = {f"{kind}_storage_authority": authority for kind in ("blob", "dfs")}
        where |= {f"{kind}_storage_scheme": scheme for kind in ("blob", "dfs")}
    known = dict(environment)
    key = known.get("AZURE_STORAGE_ACCOUNT_KEY") or known.get("AZURE_STORAGE_ACCESS_KEY")
    return pafs.AzureFileSystem(account_name=bucket.account, account_key=key, **where)
