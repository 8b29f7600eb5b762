"""Protobuf code and call tables. Import this package before grpc.

gRPC's fork support has to be off before grpc is imported: with it, a part of the children that the process starts dies
by a signal (specs/grpc-in-twisted.md, trap 1). The variable must not reach those children, see `FORK_SUPPORT_VARIABLE`.
"""

import os

FORK_SUPPORT_VARIABLE = "GRPC_ENABLE_FORK_SUPPORT"

INHERITED_FORK_SUPPORT = os.environ.get(FORK_SUPPORT_VARIABLE)
"""What the user had set; None for nothing. What children should see."""

os.environ[FORK_SUPPORT_VARIABLE] = "0"
