"""Our agent: a peer client that runs steps. No Twisted here; asyncio and grpc.aio alone.

`latent.wire` comes first: it turns gRPC's fork support off before anything imports grpc.
"""

import latent.wire  # noqa: F401
