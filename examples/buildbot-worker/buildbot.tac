# A stock buildbot-worker that finds in its environment what the official image finds there.
import os

from buildbot_worker.bot import Worker
from twisted.application import service

application = service.Application("buildbot-worker")
agent = Worker(
    os.environ["BUILDMASTER"],
    int(os.environ["BUILDMASTER_PORT"]),
    os.environ["WORKERNAME"],
    # Its builds do not find this any more.
    os.environ.pop("WORKERPASS"),
    basedir=os.getcwd(),
    keepalive=600,
    protocol=os.environ["BUILDMASTER_PROTOCOL"],
)
agent.setServiceParent(application)
