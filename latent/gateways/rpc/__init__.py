"""What the gateways that speak gRPC have in common. It knows none of them."""

# Before anything imports grpc: it turns fork support off.
import latent.wire  # noqa: F401
