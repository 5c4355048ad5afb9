"""Folders of gs://, listed by Google's own client: Arrow sees only those that have an object of their own.

What lies in a bucket often has none, and to list all that is below would be the only other way.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from opencoder_jax.beam_pipelines.core.stores.systems import PATIENCE, Unreachable
from opencoder_jax.recipe import UserError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIELDS = "items(name,size,updated),prefixes,nextPageToken"


@cache
def _client() -> Any:
    try:
        from google.cloud import storage
    except ModuleNotFoundError:
        raise UserError("gs:// needs Google's client: pip install google-cloud-storage") from None
    from google.auth.exceptions import GoogleAuthError

    try:
        return storage.Client()
    except GoogleAuthError as error:
        raise UserError(f"gs://: {' '.join(str(error).split())}") from None


def google_folder(path: str) -> Iterator[tuple[str, int | None, int]]:
    """What lies in a folder, given as BUCKET/FOLDER: name, bytes (None of a folder), nanoseconds since 1970.

    Raises:
        FileNotFoundError: the bucket isn't there.
        Unreachable: it doesn't answer.
        UserError: the client isn't installed, or finds no credentials.
    """
    client = _client()
    from google.api_core.exceptions import GoogleAPIError, NotFound
    from google.cloud.storage.retry import DEFAULT_RETRY

    bucket, _, folder = path.partition("/")
    prefix = f"{folder}/" if folder else ""
    try:
        patience = DEFAULT_RETRY.with_timeout(PATIENCE)
        found = client.list_blobs(bucket, prefix=prefix, delimiter="/", fields=_FIELDS, retry=patience)
        for blob in found:
            changed = (blob.updated - _EPOCH) // timedelta(microseconds=1) * 1000
            yield blob.name.removeprefix(prefix), blob.size, changed
        for name in found.prefixes:
            yield name.removeprefix(prefix).rstrip("/"), None, 0
    except NotFound:
        raise FileNotFoundError(f"gs://{bucket}: no such bucket") from None
    except GoogleAPIError as error:
        raise Unreachable(f"gs://{path}: {' '.join(str(error).split())}") from None
