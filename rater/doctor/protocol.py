"""Three Kafka requests in versions that aiokafka doesn't have. They report what a broker supports and what the user may do.

aiokafka normally chooses the version of a request; `FixedVersionRequest` makes it send exactly this one.
"""

from io import BytesIO
from typing import Any

from aiokafka.errors import IncompatibleBrokerVersion
from aiokafka.protocol.api import RequestStruct, Response, ResponseHeader_v0
from aiokafka.protocol.types import (
    Array,
    Boolean,
    Bytes,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Schema,
    String,
    TaggedFields,
)

_TEXT = String("utf-8")
_WITH_RIGHTS = True
_NO_CREATION_WITH_RIGHTS = (False, True, True)
_SUPPORTED_FEATURES, _FINALIZED_FEATURES = 0, 2  # tags
_FEATURES = CompactArray(("name", CompactString("utf-8")), ("one", Int16), ("other", Int16), ("tags", TaggedFields))


class FixedVersionRequest:
    """Wraps a request for aiokafka's connections, which then send it in its own version.

    `prepare` raises IncompatibleBrokerVersion if the broker doesn't support it.
    """

    def __init__(self, request: Any) -> None:
        self._request = request

    def prepare(self, versions: dict[int, tuple[int, int]]) -> Any:
        low, high = versions.get(self._request.API_KEY, (0, -1))
        if not low <= self._request.API_VERSION <= high:
            raise IncompatibleBrokerVersion(
                f"the broker doesn't support {type(self._request).__name__}; it supports versions {low} to {high}"
            )
        return self._request


def api_versions() -> FixedVersionRequest:
    """The versions the broker supports of each API; `features_of` reads its release from the answer."""
    return FixedVersionRequest(ApiVersionsRequestV3("call-rater", "1", {}))


def metadata(topics: list[str]) -> FixedVersionRequest:
    """The brokers and these topics, with what the user may do with each. Creates no topic."""
    return FixedVersionRequest(MetadataRequestV8(topics, *_NO_CREATION_WITH_RIGHTS))


def describe_groups(groups: list[str]) -> FixedVersionRequest:
    """State and members of these groups, with what the user may do with each."""
    return FixedVersionRequest(DescribeGroupsRequestV4(groups, _WITH_RIGHTS))


def features_of(response: Any) -> tuple[dict[str, int], dict[str, int]]:
    """Feature → highest level the broker supports, and feature → level the cluster uses. Empty for older brokers."""
    supported, in_use = (response.tags.get(tag) for tag in (_SUPPORTED_FEATURES, _FINALIZED_FEATURES))
    # Supported: (name, lowest, highest). In use: (name, highest, lowest).
    return (
        {name: highest for name, _, highest, _ in _features(supported)},
        {name: highest for name, highest, _, _ in _features(in_use)},
    )


def _features(data: bytes | None) -> list[Any]:
    return [] if data is None else _FEATURES.decode(BytesIO(data)) or []


class ApiVersionsResponseV3(Response):  # type: ignore[misc]
    API_KEY = 18
    API_VERSION = 3
    SCHEMA = Schema(
        ("error_code", Int16),
        (
            "api_versions",
            CompactArray(("api_key", Int16), ("min_version", Int16), ("max_version", Int16), ("tags", TaggedFields)),
        ),
        ("throttle_time_ms", Int32),
        ("tags", TaggedFields),
    )


class ApiVersionsRequestV3(RequestStruct):  # type: ignore[misc]
    FLEXIBLE_VERSION = True
    API_KEY = 18
    API_VERSION = 3
    RESPONSE_TYPE = ApiVersionsResponseV3
    SCHEMA = Schema(
        ("client_software_name", CompactString("utf-8")),
        ("client_software_version", CompactString("utf-8")),
        ("tags", TaggedFields),
    )

    def parse_response_header(self, read_buffer: Any) -> Any:
        """This response always has the oldest header, so that any client can read which versions a broker supports."""
        return ResponseHeader_v0.decode(read_buffer)


class MetadataResponseV8(Response):  # type: ignore[misc]
    API_KEY = 3
    API_VERSION = 8
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("brokers", Array(("node_id", Int32), ("host", _TEXT), ("port", Int32), ("rack", _TEXT))),
        ("cluster_id", _TEXT),
        ("controller_id", Int32),
        (
            "topics",
            Array(
                ("error_code", Int16),
                ("topic", _TEXT),
                ("is_internal", Boolean),
                (
                    "partitions",
                    Array(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", Array(Int32)),
                        ("in_sync", Array(Int32)),
                        ("offline_replicas", Array(Int32)),
                    ),
                ),
                ("authorized_operations", Int32),
            ),
        ),
        ("authorized_operations", Int32),
    )


class MetadataRequestV8(RequestStruct):  # type: ignore[misc]
    API_KEY = 3
    API_VERSION = 8
    RESPONSE_TYPE = MetadataResponseV8
    SCHEMA = Schema(
        ("topics", Array(_TEXT)),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
    )


class DescribeGroupsResponseV4(Response):  # type: ignore[misc]
    API_KEY = 15
    API_VERSION = 4
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "groups",
            Array(
                ("error_code", Int16),
                ("group", _TEXT),
                ("state", _TEXT),
                ("protocol_type", _TEXT),
                ("protocol", _TEXT),
                (
                    "members",
                    Array(
                        ("member_id", _TEXT),
                        ("group_instance_id", _TEXT),
                        ("client_id", _TEXT),
                        ("client_host", _TEXT),
                        ("member_metadata", Bytes),
                        ("member_assignment", Bytes),
                    ),
                ),
                ("authorized_operations", Int32),
            ),
        ),
    )


class DescribeGroupsRequestV4(RequestStruct):  # type: ignore[misc]
    API_KEY = 15
    API_VERSION = 4
    RESPONSE_TYPE = DescribeGroupsResponseV4
    SCHEMA = Schema(("groups", Array(_TEXT)), ("include_authorized_operations", Boolean))
