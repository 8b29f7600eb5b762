"""Every exception that latent raises on purpose.

The tree; what happens next depends on the type alone::

    LatentError
      ConfigError                             a declaration is wrong: nothing is applied
      PluginError                             a plugin can't be loaded or breaks its contract
      LatentWorkerFailedToSubstantiate        infrastructure: the build is retried, the worker backs off
        LatentWorkerCapacityError               the provider has no room just now
        LatentWorkerQuotaError                  the account may not have more
        LatentWorkerThrottled                   the provider asks for fewer calls
        LatentWorkerConfigurationError          image, key, network... named in the config do not exist
      LatentWorkerCannotSubstantiate          this build's own properties: the build fails, the worker is not blamed
        MissingProperty                         a renderable needs a property that the build lacks (`latent.worker.properties`)
      LatentWorkerSubstantiationCancelled     nobody wants the instance any more: nobody is blamed
      MachineError                            a latent machine could not be started or stopped
      EnrolmentRefused                        an agent's token is wrong, used, or another attempt's
      ProtocolError                           an agent broke its protocol: the call fails, the session stays
        NotYourRun                              the run belongs to another session, or is over
      StoreError                              durable state can't be read or written
        RunNotFound                             no run has this id
        MachineBusy                             the machine has a live run already (`latent.store.runs`)
        RunsRefused                             records of another store that can't be taken in (`latent.store.runs`)
        StoreCorrupt                            what is on disk is not what was written
      NotFound                                a build, worker or log that nobody knows
      ControllerStopping                      the controller takes no builds just now, and will when it is back
      WorkflowError                           a workflow can't be driven
        EmptyWorkflowError                      there is nothing in it, or it is not there
        NotResumable                            it runs, or is finished, or was never begun
        NotYourWorkflow                         the run is over, or another driver has taken its place
        DistributorNotAlive                     what carries out the builds is gone
        ControllerAway                          no controller has answered for too long
"""

from __future__ import annotations


class LatentError(Exception):
    """The base of all."""


class ConfigError(LatentError):
    """A declaration is wrong.

    ``errors`` is a list of messages; each names the place and the remedy.
    """

    def __init__(self, errors: str | list[str]) -> None:
        self.errors = [errors] if isinstance(errors, str) else list(errors)
        super().__init__("\n".join(self.errors))


class PluginError(LatentError):
    """A plugin can't be loaded, or breaks its contract; names the distribution it came from."""


class LatentWorkerFailedToSubstantiate(LatentError):
    """The infrastructure failed: the build is retried elsewhere and the worker backs off."""


class LatentWorkerCapacityError(LatentWorkerFailedToSubstantiate):
    """The provider has no room for the instance just now."""


class LatentWorkerQuotaError(LatentWorkerFailedToSubstantiate):
    """The account may not have more instances."""


class LatentWorkerThrottled(LatentWorkerFailedToSubstantiate):
    """The provider asks for fewer calls."""


class LatentWorkerConfigurationError(LatentWorkerFailedToSubstantiate):
    """Something that the declaration names (image, key, network) does not exist at the provider."""


class LatentWorkerCannotSubstantiate(LatentError):
    """This build's own properties can't be met: the build ends as an exception, the worker is not blamed."""


class LatentWorkerSubstantiationCancelled(LatentError):
    """The instance was given up before its agent attached: nobody is blamed."""


class EnrolmentRefused(LatentError):
    """An agent's token is unknown, used, or belongs to an attempt that is over."""


class ProtocolError(LatentError):
    """An agent broke the rules of its protocol; the message says which."""


class NotYourRun(ProtocolError):
    """The run belongs to another session, or is over."""


class StoreError(LatentError):
    """Durable state can't be read or written; the message says where and what to do."""


class RunNotFound(StoreError):
    """No run has this id."""


class StoreCorrupt(StoreError):
    """What is on disk is not what was written; it is left as it is."""


class MachineError(LatentError):
    """A latent machine could not be started or stopped; the message says why."""


class NotFound(LatentError):
    """No build, worker or log of that name."""


class ControllerStopping(LatentError):
    """The controller is being stopped and takes no builds any more: the next one does."""


class WorkflowError(LatentError):
    """A workflow can't be driven; the message says why and what to do."""


class EmptyWorkflowError(WorkflowError):
    """The workflow has no tasks, or there is no such workflow."""


class NotResumable(WorkflowError):
    """The workflow is driven by somebody, or finished, or its tasks are not all stored."""


class NotYourWorkflow(WorkflowError):
    """The workflow run is over, or another driver has taken its place."""


class DistributorNotAlive(WorkflowError):
    """What carries out the workflow's builds is gone."""


class ControllerAway(WorkflowError):
    """No controller has answered for longer than the driver has patience."""
