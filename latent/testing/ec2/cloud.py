"""The cloud as a test has it: a process beside the test's, and a handle on it."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from latent.testing.ec2.faulty import Faulty
from latent.testing.ec2.values import CONTROL, PASSWORD, Call, CloudError, Hypervisor, SeenInstance, call_of, instance_of

START_TIMEOUT = 60
"""Seconds that the process may take to answer."""

END_TIMEOUT = 20
"""Seconds that it may take to end all that runs in it."""


class Cloud(Faulty):
    """EC2 on loopback. Use it with ``with``, or call `close`. Everything that it does may be called from any thread.

    ``region``: the one that the attributes tell of; the API answers for every one that there is.
    ``hypervisor``: how instances run; None: they only say so.
    ``pending``, ``ending``: seconds that an instance is starting, and that it is stopping or shutting down.
    ``key_id``, ``secret``: credentials that it takes; made up anew where they are not given.

    ``endpoint_url``: where the API is. ``key_id``, ``secret``, ``session_token`` ("" without): what it takes now.
    ``image``: an AMI; ``images``: more of them. ``subnets``: of the default VPC, by zone. ``vpc``: that one.
    ``security_group``, ``security_name``: its default group. ``key_name``: a key pair.
    ``account_id``: who owns all this.
    """

    def __init__(
        self,
        *,
        region: str = "eu-west-1",
        hypervisor: Hypervisor | None = None,
        pending: float = 0.2,
        ending: float = 0.1,
        key_id: str | None = None,
        secret: str | None = None,
    ) -> None:
        settings = {
            "region": region,
            "hypervisor": None if hypervisor is None else _document_of(hypervisor),
            "pending": pending,
            "ending": ending,
            "key_id": key_id,
            "secret": secret,
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._process = _start(settings)
        try:
            state = _first_words(self._process)
        except BaseException:
            self.close()
            raise
        self._know(state)

    @classmethod
    def at(cls, state_file: str | os.PathLike[str]) -> Self:
        """One that runs by itself. `close` leaves it as it is; `stop` ends it. `CloudError` where there is none."""
        try:
            state = json.loads(Path(state_file).read_text())
        except (OSError, ValueError) as error:
            raise CloudError(f"there is no cloud at {os.fspath(state_file)}: {error}") from error
        cloud = cls.__new__(cls)
        cloud._process = None
        cloud._know(state)
        return cloud

    def _know(self, state: Mapping[str, Any]) -> None:
        self.state: Mapping[str, Any] = state
        self.endpoint_url: str = state["endpoint_url"]
        self.region: str = state["region"]
        self.key_id: str = state["key_id"]
        self.secret: str = state["secret"]
        self.session_token: str = state["session_token"]
        self.account_id: str = state["account_id"]
        self.images: tuple[str, ...] = tuple(state["images"])
        self.image: str = self.images[0]
        self.vpc: str = state["vpc"]
        self.subnets: Mapping[str, str] = state["subnets"]
        self.security_group: str = state["security_group"]
        self.security_name: str = state["security_name"]
        self.key_name: str = state["key_name"]
        self.pid: int = state["pid"]
        self._address: tuple[str, int] = (state["host"], state["port"])
        self._password: str = state["password"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End it with all that runs in it, if this object started it."""
        if self._process is None:
            return
        process, self._process = self._process, None
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        try:
            process.wait(END_TIMEOUT)
        except subprocess.TimeoutExpired:
            # Its guard ends what ran in it.
            process.kill()
            process.wait()

    def stop(self) -> None:
        """End it, whoever started it."""
        with contextlib.suppress(CloudError):
            self.control("stop")
        self.close()

    def reset(self) -> None:
        """As it was at first: no instances, no faults, no calls. The attributes change; the credentials are the first ones again.

        Quicker than a new one, for tests that share it.
        """
        self._know(self.control("reset"))

    # -- who talks to it

    def client(self, service: str = "ec2", **arguments: Any) -> Any:
        """boto3's client of it, with credentials as they are now. ``arguments`` go to boto3 and prevail."""
        import boto3

        make: Any = boto3.session.Session().client
        return make(
            service,
            **{
                "endpoint_url": self.endpoint_url,
                "region_name": self.region,
                "aws_access_key_id": self.key_id,
                "aws_secret_access_key": self.secret,
                "aws_session_token": self.session_token or None,
                **arguments,
            },
        )

    @property
    def environment(self) -> dict[str, str]:
        """What makes a program that uses an AWS SDK talk to it."""
        token = {"AWS_SESSION_TOKEN": self.session_token} if self.session_token else {}
        return {
            "AWS_ENDPOINT_URL_EC2": self.endpoint_url,
            "AWS_ACCESS_KEY_ID": self.key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_REGION": self.region,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            **token,
        }

    def renew_credentials(self) -> None:
        """New ones, temporary, with a session token. The old ones go on unless they were expired."""
        fresh = self.control("renew_credentials")
        self.key_id, self.secret, self.session_token = fresh["key_id"], fresh["secret"], fresh["session_token"]

    # -- what it has seen

    @property
    def log(self) -> list[Call]:
        """All calls so far, or since `forget_calls`, in the order in which they came."""
        return [call_of(document) for document in self.control("log")]

    @property
    def calls(self) -> Counter[str]:
        """How many calls there were, by action: what the client sent, also when it was throttled."""
        return Counter(self.control("calls"))

    def forget_calls(self) -> None:
        self.control("forget_calls")

    def instances(self, *states: str) -> list[SeenInstance]:
        """All that there are, or those in these states, oldest first. Not a call, and no fault touches it."""
        found = [instance_of(document) for document in self.control("instances")]
        return [one for one in found if not states or one.state in states]

    def instance(self, instance_id: str) -> SeenInstance:
        """KeyError if there is none."""
        for one in self.instances():
            if one.id == instance_id:
                return one
        raise KeyError(instance_id)

    def console(self, instance_id: str) -> str:
        """What the instance's processes have printed."""
        text: str = self.control("console", instance_id=instance_id)
        return text

    def processes(self, instance_id: str | None = None) -> list[int]:
        """The pids of all that runs in an instance, or in all of them."""
        found: list[int] = self.control("processes", instance_id=instance_id)
        return found

    def wait(self, until: Callable[[list[SeenInstance]], object], *, seconds: float = 30, what: str = "it") -> list[SeenInstance]:
        """Look at the instances until ``until`` says yes; what they were then. AssertionError after ``seconds``. Blocks."""
        end = time.monotonic() + seconds
        while True:
            found = self.instances()
            if until(found):
                return found
            if time.monotonic() > end:
                shown = "\n".join(f"  {one.id} {one.state} booted {one.booted} {dict(one.tags)}" for one in found)
                raise AssertionError(f"{what} did not come to be within {seconds:g} s; the instances:\n{shown}")
            threading.Event().wait(0.05)

    # -- the wire

    def control(self, what: str, /, **arguments: Any) -> Any:
        connection = HTTPConnection(*self._address, timeout=START_TIMEOUT)
        try:
            body = json.dumps(arguments).encode()
            headers = {"Content-Type": "application/json", PASSWORD: self._password}
            connection.request("POST", CONTROL + what, body, headers)
            response = connection.getresponse()
            text = response.read().decode()
        except (OSError, HTTPException) as error:
            raise CloudError(f"the cloud at {self.endpoint_url} does not answer: {error!r}") from error
        finally:
            connection.close()
        if response.status != 200:
            raise CloudError(text)
        return json.loads(text)


def _document_of(hypervisor: Hypervisor) -> dict[str, Any]:
    return {"environment": dict(hypervisor.environment), "path": list(hypervisor.path), "at_once": hypervisor.at_once}


def _start(settings: Mapping[str, Any]) -> subprocess.Popen[bytes]:
    """It reads its settings from its standard input, and ends when that is closed, as it is when we die."""
    process = subprocess.Popen(
        [sys.executable, "-m", "latent.testing.ec2", "--child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(json.dumps(settings).encode() + b"\n")
        process.stdin.flush()
    return process


def _first_words(process: subprocess.Popen[bytes]) -> Mapping[str, Any]:
    """What it says once it can be talked to."""
    assert process.stdout is not None
    with selectors.DefaultSelector() as waits:  # select() itself takes no descriptor over 1023
        waits.register(process.stdout, selectors.EVENT_READ)
        ready = waits.select(START_TIMEOUT)
    line = process.stdout.readline() if ready else b""
    if not line.endswith(b"\n"):
        raise CloudError("the cloud did not start; what it has to say is in this process's standard error")
    state: Mapping[str, Any] = json.loads(line)
    return state
