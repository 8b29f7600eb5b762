"""What the author of a plugin imports."""

from latent.worker.base import AbstractLatentWorker, AbstractWorker, Enrolment, ListedInstance, ProviderStatus, Worker
from latent.worker.build import WorkerBuild
from latent.worker.compatible import CompatibleLatentWorkerMixin
from latent.worker.properties import Interpolate, MissingProperty, Properties, Property, render, renderer
from latent.worker.sharing import Shared
from latent.worker.threads import ThreadPool, discard

__all__ = [
    "AbstractLatentWorker",
    "AbstractWorker",
    "CompatibleLatentWorkerMixin",
    "Enrolment",
    "Interpolate",
    "ListedInstance",
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
