"""The descriptors of messages that other packages have too, under the same names.

protobuf refuses to know two messages of one name, and a plugin's cloud library may bring `google.rpc.Status` along: so ours are
in a pool of their own, together with the well-known types that they use. Messages of one pool can't be put into messages of
another; what is in `latent/wire` is only put together from itself.
"""

from __future__ import annotations

from google.protobuf import any_pb2, duration_pb2, empty_pb2, field_mask_pb2, timestamp_pb2
from google.protobuf.descriptor_pool import DescriptorPool

POOL = DescriptorPool()

for _module in (any_pb2, duration_pb2, empty_pb2, field_mask_pb2, timestamp_pb2):
    POOL.AddSerializedFile(_module.DESCRIPTOR.serialized_pb)
