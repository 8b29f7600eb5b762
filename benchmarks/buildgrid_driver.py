"""Submits executions to BuildGrid; runs in the peer's environment.

    python buildgrid_driver.py ADDRESS COUNT

Prints "submitted" when all are there, and keeps them wanted until its standard input is closed.
"""

from __future__ import annotations

import hashlib
import sys

import grpc
from buildgrid._protos.build.bazel.remote.execution.v2 import remote_execution_pb2 as re
from buildgrid._protos.build.bazel.remote.execution.v2 import remote_execution_pb2_grpc as stubs


def main(address: str, count: int) -> None:
    channel = grpc.insecure_channel(address)
    storage = stubs.ContentAddressableStorageStub(channel)
    execution = stubs.ExecutionStub(channel)

    def put(data: bytes) -> re.Digest:
        digest = re.Digest(hash=hashlib.sha256(data).hexdigest(), size_bytes=len(data))
        request = re.BatchUpdateBlobsRequest()
        request.requests.add(digest=digest, data=data)
        storage.BatchUpdateBlobs(request)
        return digest

    root = put(re.Directory().SerializeToString())
    running = []
    for number in range(count):
        command = put(re.Command(arguments=["true", str(number)]).SerializeToString())
        action = put(re.Action(command_digest=command, input_root_digest=root, do_not_cache=True).SerializeToString())
        call = execution.Execute(re.ExecuteRequest(action_digest=action, skip_cache_lookup=True))
        next(call)
        running.append(call)
    print("submitted", flush=True)
    sys.stdin.read()
    for call in running:
        call.cancel()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
