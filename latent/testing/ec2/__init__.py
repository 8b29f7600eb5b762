"""An EC2 of one's own, on loopback: for tests of what talks to EC2 by boto3, whose instances really run their user data.

    with Cloud(hypervisor=Hypervisor()) as cloud:
        ec2 = cloud.client()
        cloud.throttle(rate=2, burst=5)
        launched = ec2.run_instances(ImageId=cloud.image, MinCount=1, MaxCount=3, UserData="#!/bin/sh\\nlatent-agent ...")
        ...
        assert cloud.calls["RunInstances"] == 1

moto keeps the account. In front of it is a layer that supplies what moto lacks (ClientToken, MaxCount, states that take time,
pages, signatures) and every fault that a test wants. The `Hypervisor` runs the user data of each running instance as processes
of this machine, with a metadata service of its own. All of it is one process beside the test's, which ends when the test does,
also when that is killed. By itself it is started with ``python -m latent.testing.ec2 --state-file FILE``.

Needs the extra ``latent[testing-ec2]``.
"""

from importlib.util import find_spec

_MISSING = [name for name in ("moto", "flask", "boto3", "yaml") if find_spec(name) is None]
if _MISSING:
    raise ImportError(
        f"latent.testing.ec2 needs {', '.join(_MISSING)}, which is not installed: pip install 'latent[testing-ec2]'",
        name=_MISSING[0],
    )

from latent.testing.ec2.cloud import Cloud  # noqa: E402  what is missing is told before it is missed
from latent.testing.ec2.values import Call, CloudError, Hypervisor, SeenInstance  # noqa: E402

__all__ = ["Call", "Cloud", "CloudError", "Hypervisor", "SeenInstance"]
