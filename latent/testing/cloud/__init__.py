"""A cloud for tests: in memory and by the test's own clock, or as a process of its own; it lets go wrong what it is told to.

    cloud = Cloud(clock, seed=7)
    cloud.hang("create")                          # the next create is not answered
    worker = CloudLatentWorker("w", cloud=cloud)  # a plugin with every hook
    ...
    cloud.check()                                 # AssertionError if an instance is left

docs/test-cloud.md tells it all.
"""

from latent.testing.cloud.agents import InProcessAgents
from latent.testing.cloud.cloud import Cloud
from latent.testing.cloud.harness import CloudHarness
from latent.testing.cloud.orders import Orders
from latent.testing.cloud.processes import AgentProcesses
from latent.testing.cloud.provider import Guest
from latent.testing.cloud.remote import CloudProcess, RemoteCloud
from latent.testing.cloud.script import Fault
from latent.testing.cloud.values import CloudError, Entry, Instance, Leak
from latent.testing.cloud.worker import CloudLatentWorker

__all__ = [
    "AgentProcesses",
    "Cloud",
    "CloudError",
    "CloudHarness",
    "CloudLatentWorker",
    "CloudProcess",
    "Entry",
    "Fault",
    "Guest",
    "InProcessAgents",
    "Instance",
    "Leak",
    "Orders",
    "RemoteCloud",
]
