"""The bucket of an S3 store: is it there, and may we use it? The only use of MinIO's SDK; knows no objects."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import minio
import urllib3
from minio.credentials import ChainedProvider, EnvAWSProvider, IamAwsProvider
from minio.error import S3Error

from memory3.errors import BackendUnavailableError, Memory3Error, StorageDeniedError
from services.memory.config import S3Location

_AMAZON = "https://s3.amazonaws.com"
_MISSING = "NoSuchBucket"
_OURS_ALREADY = ("BucketAlreadyOwnedByYou", "BucketAlreadyExists")
"""Another replica was faster."""


class BucketAdmin:
    """Looks after one bucket."""

    def __init__(
        self, location: S3Location, access_key: str, secret_key: str, *, timeout_s: float, ca: Path | None = None
    ) -> None:
        """Without keys, those of the AWS_* variables or of the machine's role are taken. `ca`: trusted authorities."""
        trusted = ssl.create_default_context()
        if ca is not None:
            trusted.load_verify_locations(ca)
        endpoint = urllib3.util.parse_url(location.endpoint or _AMAZON)
        provider = None if access_key else ChainedProvider([EnvAWSProvider(), IamAwsProvider()])
        self._location = location
        self._client = minio.Minio(
            endpoint.netloc,
            access_key=access_key or None,
            secret_key=secret_key or None,
            secure=endpoint.scheme == "https",
            region=location.region,
            credentials=provider,
            http_client=urllib3.PoolManager(timeout=urllib3.Timeout(timeout_s), retries=False, ssl_context=trusted),
        )
        if location.path_style:
            self._client.disable_virtual_style_endpoint()
        else:
            self._client.enable_virtual_style_endpoint()

    async def ensure(self) -> None:
        """Return when the bucket is there, making it if allowed. Raises StorageDenied- or BackendUnavailableError."""
        await asyncio.to_thread(self._ensure)

    def _ensure(self) -> None:
        bucket = self._location.bucket
        try:
            if self._client.bucket_exists(bucket_name=bucket):
                return
            if not self._location.create:
                raise BackendUnavailableError(f"bucket {bucket!r} does not exist; make it, or let create=true make it")
            self._client.make_bucket(bucket_name=bucket, location=self._location.region)
        except S3Error as error:
            if error.code not in _OURS_ALREADY:
                raise self._translated(error) from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            where = self._location.endpoint or _AMAZON
            if isinstance(error, urllib3.exceptions.SSLError):
                raise untrusted(where, " ".join(str(error).split())[:200]) from error
            raise BackendUnavailableError(
                f"{where} does not answer ({type(error).__name__}); is the S3 server up?"
            ) from error

    def _translated(self, error: S3Error) -> Memory3Error:
        status = error.response.status if error.response is not None else 0
        if status in (401, 403):
            return StorageDeniedError(
                f"bucket {self._location.bucket!r}: {error.code}; check the keys, and that they may list this bucket"
            )
        return BackendUnavailableError(f"bucket {self._location.bucket!r}: {error.code} (status {status})")


def untrusted(where: str, reason: str) -> BackendUnavailableError:
    """What to raise where the server's certificate is refused."""
    return BackendUnavailableError(
        f"{where} is not reached by TLS ({reason}); is its certificate good for that name, and signed by an authority "
        "of MEMORY3_MEMORY_S3_CA, or without that by one of the system's?"
    )
