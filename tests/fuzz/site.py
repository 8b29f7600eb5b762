"""A controller with a worker for each agent that misbehaves and one for each that behaves well."""

MASTER = """
from latent.plugins import util, worker

names = ["fuzz-peer", "fuzz-pb", "fuzz-msgpack", "well-peer", "well-pb", "well-msgpack"]
c["workers"] = [worker.Worker(name, "password of " + name, max_builds=3) for name in names]
c["builders"] = [util.Builder("b", ["true"])]
c["protocols"] = {"peer": {}, "pb": {}, "msgpack_experimental_v7": {}}
c["limits"] = {"session_timeout": 30, "lease_seconds": 30}
"""


def password(worker):
    return f"password of {worker}"
