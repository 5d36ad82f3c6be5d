"""Several endpoints of one run, by name: checked, connected and counted together."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from sgcd.endpoint.client import Endpoint
from sgcd.storage.metrics import EndpointUsage


def check_endpoints(endpoints: Mapping[str, Endpoint]) -> None:
    """Refuse what would fail at the first call. Nothing is called."""
    for endpoint in endpoints.values():
        endpoint.check_ready()


@asynccontextmanager
async def connect_endpoints(
    endpoints: Mapping[str, Endpoint], journals: Mapping[str, Path]
) -> AsyncGenerator[None, None]:
    """Connect every endpoint. One with a path in `journals` writes a row per call there."""
    async with AsyncExitStack() as stack:
        for name, endpoint in endpoints.items():
            await stack.enter_async_context(endpoint.connect(journals.get(name)))
        yield


def pop_endpoint_metrics(endpoints: Mapping[str, Endpoint]) -> dict[str, EndpointUsage]:
    """Calls, tokens and cost of each endpoint since the last call of this function."""
    return {name: endpoint.usage_tracker.pop_metrics() for name, endpoint in endpoints.items()}
