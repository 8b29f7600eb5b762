"""The controller that is fuzzed."""

from latent.model import BuildRequest, Payload, Requirements, Step

MASTER = """
from latent.plugins import util, worker

def declare(name, **kwargs):
    return worker.Worker(name, "password of " + name, max_builds=3, **kwargs)

bot = {"labels": {"agent": "bot"}}
c["workers"] = [declare("well-" + kind) for kind in ("peer", "pb", "msgpack")] + [declare("well-bots", **bot)]
for n in range(8):
    c["workers"] += [declare(f"fuzz-{kind}-{n}") for kind in ("peer", "pb", "msgpack")] + [declare(f"fuzz-bots-{n}", **bot)]
c["builders"] = [util.Builder("b", ["true"])]
c["protocols"] = {"peer": {}, "pb": {}, "msgpack_experimental_v7": {}, "bots": {}}
"""
"""A controller with a worker for each agent that misbehaves and one for each that behaves well."""

ABREAST = 8
"""How many workers there are to be fuzzed on each gateway."""

WELL = {"peer": "well-peer", "pb": "well-pb", "msgpack_experimental_v7": "well-msgpack", "bots": "well-bots"}


def fuzzed(protocol, number=0):
    """A worker's name."""
    return f"{WELL[protocol].replace('well', 'fuzz')}-{number}"


def password(worker):
    return f"password of {worker}"


def request(worker):
    """A build for this worker and no other."""
    needs = Requirements(workers=frozenset({worker}))
    if "bots" in worker:
        return BuildRequest(builder="b", steps=(), payload=Payload("type.googleapis.com/some.Work", b"x"), requirements=needs)
    return BuildRequest(builder="b", steps=(Step(name="s", command="true"),), requirements=needs)
