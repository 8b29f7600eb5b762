"""What the author of a plugin imports."""

from latent.worker.base import AbstractLatentWorker, AbstractWorker, Enrolment, ListedInstance, ProviderStatus, Worker
from latent.worker.build import WorkerBuild
from latent.worker.compatible import CompatibleLatentWorkerMixin
from latent.worker.machine import AbstractLatentMachine, Machine
from latent.worker.properties import Interpolate, MissingProperty, Properties, Property, render, renderer
from latent.worker.sharing import Shared
from latent.worker.threads import ThreadPool, discard

__all__ = [
    "AbstractLatentMachine",
    "AbstractLatentWorker",
    "AbstractWorker",
    "CompatibleLatentWorkerMixin",
    "Enrolment",
    "Interpolate",
    "ListedInstance",
    "Machine",
    "MissingProperty",
    "Properties",
    "Property",
    "ProviderStatus",
    "Shared",
    "ThreadPool",
    "Worker",
    "WorkerBuild",
    "discard",
    "render",
    "renderer",
]
