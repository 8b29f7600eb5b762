"""moto, in this process: how it is called and what is set right in it for all regions."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from io import BytesIO
from typing import Any
from urllib.parse import urlencode

from latent.testing.ec2.answers import Answer, Refused, Request, code_of

ACCOUNT = "123456789012"
FORM = "application/x-www-form-urlencoded; charset=utf-8"


class Backend:
    """To be made once in a process: moto's state is global."""

    def __init__(self) -> None:
        # Read by moto when it is imported. Its own images are 900 kB that nobody asks for.
        os.environ["MOTO_EC2_LOAD_DEFAULT_AMIS"] = "false"
        os.environ["MOTO_ACCOUNT_ID"] = ACCOUNT
        server: Any = import_module("moto.moto_server.werkzeug_app")
        self._app = server.DomainDispatcherApplication(server.create_backend_app)
        self._run_app: Any = import_module("werkzeug.test").run_wsgi_app
        self._set_right()

    def reset(self) -> None:
        """Forget everything: in all regions, of EC2 and of the services that go with it."""
        for service in ("ec2", "iam", "ssm"):
            models: Any = sys.modules.get(f"moto.{service}.models")
            if models is not None:
                for one in list(getattr(models, f"{service}_backends")[ACCOUNT].values()):
                    one.reset()

    def ec2(self, region: str) -> Any:
        """moto's object for a region. KeyError if there is no such region."""
        models: Any = import_module("moto.ec2.models")
        return models.ec2_backends[ACCOUNT][region]

    def instance_types(self) -> Any:
        types: Any = import_module("moto.ec2.models.instance_types")
        return types.INSTANCE_TYPES

    def spot_request_class(self) -> Any:
        spot: Any = import_module("moto.ec2.models.spot_requests")
        return spot.SpotInstanceRequest

    def call(self, request: Request) -> Answer:
        """Let it answer. For EC2 with the request's parameters; other services get what was sent."""
        body = request.form
        if request.service == "ec2":
            body = urlencode({"Action": request.action, "Version": "2016-11-15", **request.parameters}).encode()
        environment = {
            "REQUEST_METHOD": "POST" if request.service == "ec2" else request.method,
            "SCRIPT_NAME": "",
            "PATH_INFO": request.path,
            "QUERY_STRING": "" if request.service == "ec2" else request.query,
            "SERVER_NAME": "127.0.0.1",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "CONTENT_TYPE": FORM if request.service == "ec2" else request.headers.get("content-type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": BytesIO(body),
            "wsgi.errors": BytesIO(),
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }
        for name, value in request.headers.items():
            if name not in ("content-type", "content-length", "content-encoding", "transfer-encoding"):
                environment["HTTP_" + name.upper().replace("-", "_")] = value
        try:
            chunks, status, headers = self._run_app(self._app, environment, buffered=True)
        except NotImplementedError as missing:
            raise Refused("Unsupported", f"moto can't do this: {missing}", 501) from missing
        text = b"".join(chunks)
        number = int(status.split()[0])
        return Answer(number, text, headers.get("Content-Type", "text/xml"), code_of(text) if number >= 400 else "")

    def _set_right(self) -> None:
        """What moto says of every instance alike."""
        instances: Any = import_module("moto.ec2.models.instances")
        # It looks through the tags of everything for those of one.
        instances.Instance.get_tags = _tags
        instances.Instance.instance_status = property(lambda instance: _status(instance, "instance"))
        instances.Instance.system_status = property(lambda instance: _status(instance, "system"))
        # It calls all that was launched pending, also when the call is repeated an hour later.
        base: Any = import_module("moto.ec2.responses._base_response")
        transformers = getattr(base.EC2BaseResponse, "RESPONSE_KEY_PATH_TO_TRANSFORMER", {})
        transformers.pop("RunInstances.Reservation.Instances.Instance.State", None)


def _tags(instance: Any) -> list[dict[str, str]]:
    found = instance.ec2_backend.tags.get(instance.id, {})
    return [{"resource_id": instance.id, "key": key, "value": value, "resource_type": "instance"} for key, value in found.items()]


def _status(instance: Any, kind: str) -> dict[str, Any]:
    """Whatever `Cloud.set_status` said; nothing while it does not run."""
    if instance._state.name != "running":
        return {"Status": "not-applicable"}
    status = getattr(instance, "latent_statuses", {}).get(kind, "ok")
    passed = {"ok": "passed", "impaired": "failed"}.get(status, status)
    return {"Status": status, "Details": [{"Name": "reachability", "Status": passed}]}
