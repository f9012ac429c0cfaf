"""What an S3 error means to the caller: a person must change the request or the store, or try again."""

from __future__ import annotations

from botocore.exceptions import (
    BotoCoreError,
    ChecksumError,
    ClientError,
    ConnectionError,  # noqa: A004 – botocore's word
    CredentialRetrievalError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    MetadataRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
)

from penstock.core.errors import Denied, PenstockError, Rejected, Retryable

_REFUSED = {
    "403",  # HEAD has no body, hence no code
    "401",
    "AccessDenied",
    "AllAccessDisabled",
    "AccountProblem",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "SignatureDoesNotMatch",
    "UnauthorizedAccess",
}
_NOT_NOW = {
    "InternalError",
    "NoSuchUpload",  # someone cleared the parts away in the middle of an upload
    "OperationAborted",
    "RequestTimeout",
    "ServiceUnavailable",
    "SlowDown",
    "ThrottlingException",
    "Throttling",
    "TooManyRequests",
    "RequestLimitExceeded",
    "BandwidthLimitExceeded",
}
_FULL = {"507", "InsufficientStorage", "QuotaExceeded", "XMinioStorageFull"}
_ELSEWHERE = {
    "301",
    "PermanentRedirect",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraint",
}
_TRANSIENT = (
    ChecksumError,
    ConnectionError,
    CredentialRetrievalError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    MetadataRetrievalError,
)


def status(e: ClientError) -> int:
    """The HTTP status of an error answer."""
    return int(e.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def translated(e: ClientError | BotoCoreError, *, bucket: str, where: str) -> PenstockError:
    """The same error in Penstock's terms."""
    if isinstance(e, ClientError):
        error = e.response.get("Error", {})
        return translated_code(
            error.get("Code", ""),
            error.get("Message", ""),
            bucket=bucket,
            where=where,
            http_status=status(e),
        )
    if isinstance(e, (NoCredentialsError, PartialCredentialsError)):
        return Denied(
            f"S3 credentials are missing: {e}",
            where=where,
            fix="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or a role",
        )
    if isinstance(e, _TRANSIENT):
        return Retryable(
            f"S3 did not answer: {e}",
            where=where,
            fix="look at the network and at AWS_ENDPOINT_URL; it is tried again",
        )
    return Rejected(
        f"S3 cannot be used like this: {e}", where=where, fix="correct the settings of S3"
    )


def translated_code(
    code: str, message: str, *, bucket: str, where: str, http_status: int = 400
) -> PenstockError:
    """An error answer by its code; the status decides about codes that are not known."""
    told = f"{code}: {message}" if message else code
    if code in {"NoSuchBucket", "NotFound", "404"}:
        return Rejected(
            f"bucket {bucket} does not exist",
            where=where,
            fix="create it, or correct the URL of the storage; Penstock creates no buckets",
        )
    if code == "RequestTimeTooSkewed":
        return Denied(
            "S3 refuses requests because the clocks differ",
            where=where,
            fix="set the clock of this machine",
        )
    if code in _REFUSED or http_status in {401, 403}:
        return Denied(
            f"S3 credentials are refused ({told})",
            where=where,
            fix="check the access key and its rights: GetObject, PutObject, DeleteObject, "
            "AbortMultipartUpload and ListBucket are needed",
        )
    if code in _FULL or http_status == 507:
        return Denied(
            f"the object store is full ({told})",
            where=where,
            fix="free some space or raise the quota",
        )
    if code == "NotImplemented" or http_status == 501:
        return Rejected(
            f"this object store cannot do what Penstock needs ({told})",
            where=where,
            fix="choose a store with conditional writes (If-None-Match) and multipart uploads",
        )
    if code in _ELSEWHERE or http_status == 301:
        return Rejected(
            f"bucket {bucket} lies in another region ({told})",
            where=where,
            fix="set AWS_DEFAULT_REGION to the bucket's region",
        )
    if code in _NOT_NOW or http_status == 429 or http_status >= 500:
        return Retryable(f"S3 cannot do it now ({told})", where=where, fix="it is tried again")
    return Rejected(
        f"S3 refuses the request ({told})", where=where, fix="correct the settings of S3"
    )
