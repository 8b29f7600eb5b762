"""Requests as EC2's query protocol has them, and answers to them."""

from __future__ import annotations

import gzip
import re
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Self
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

from attrs import evolve, frozen

NAMESPACE = "http://ec2.amazonaws.com/doc/2016-11-15/"

_SCOPE = re.compile(r"Credential=([^/,\s]+)/(\d+)/([^/,\s]+)/([^/,\s]+)/aws4_request")


class Refused(Exception):
    """AWS's error: its code, what it says, and the HTTP status that it comes with."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.message, self.status = code, message, status


@frozen
class Answer:
    """What goes to the client. ``error``: AWS's code, "" if it is none."""

    status: int
    body: bytes
    type: str = "text/xml;charset=UTF-8"
    error: str = ""


@frozen
class Request:
    """A call that has come in whole. ``body`` is as it was sent, which is what was signed; ``form`` is it unpacked."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    form: bytes
    key_id: str
    region: str
    service: str
    action: str
    parameters: Mapping[str, str]

    @classmethod
    def read(cls, method: str, path: str, query: str, headers: Mapping[str, str], body: bytes) -> Self:
        """``headers``: names in lower case."""
        form = gzip.decompress(body) if headers.get("content-encoding", "").lower() == "gzip" else body
        parameters = dict(parse_qsl(query, keep_blank_values=True))
        if headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
            parameters |= parse_qsl(form.decode("utf-8", "replace"), keep_blank_values=True)
        scope = _SCOPE.search(headers.get("authorization", ""))
        key_id, region, service = (scope[1], scope[3], scope[4]) if scope else ("", "", "ec2")
        action = parameters.pop("Action", "") or headers.get("x-amz-target", "").rpartition(".")[2]
        parameters.pop("Version", None)
        return cls(method, path, query, headers, body, form, key_id, region, service, action, parameters)

    @property
    def name(self) -> str:
        """What it is counted as."""
        return self.action if self.service == "ec2" else f"{self.service}.{self.action}"

    @property
    def document(self) -> dict[str, Any]:
        """Its parameters with their structure: ``Filter.1.Value.2=x`` becomes ``{"Filter": [{"Value": [.., "x"]}]}``."""
        return decode(self.parameters)

    def with_parameters(self, parameters: Mapping[str, str]) -> Self:
        return evolve(self, parameters=dict(parameters))


def decode(parameters: Mapping[str, str]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, value in parameters.items():
        *path, last = name.split(".")
        place = tree
        for step in path:
            deeper = place.setdefault(step, {})
            # A name that is a value and a structure is nonsense; who sent it learns that from what is missing.
            place = deeper if isinstance(deeper, dict) else place
        place[last] = value
    whole = _lists(tree)
    return whole if isinstance(whole, dict) else {}


def _lists(tree: Any) -> Any:
    if not isinstance(tree, dict):
        return tree
    if tree and all(name.isdigit() for name in tree):
        return [_lists(tree[name]) for name in sorted(tree, key=int)]
    return {name: _lists(value) for name, value in tree.items()}


def encode_list(name: str, items: Sequence[str | Mapping[str, Any]]) -> dict[str, str]:
    """The reverse for one list: of strings, or of mappings to a string or to a list of strings."""
    found: dict[str, str] = {}
    for number, item in enumerate(items, 1):
        if isinstance(item, str):
            found[f"{name}.{number}"] = item
            continue
        for key, value in item.items():
            if isinstance(value, str):
                found[f"{name}.{number}.{key}"] = value
            else:
                found |= encode_list(f"{name}.{number}.{key}", value)
    return found


def error(refused: Refused) -> Answer:
    body = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Response><Errors><Error><Code>{escape(refused.code)}</Code><Message>{escape(refused.message)}</Message></Error></Errors>"
        f"<RequestID>{uuid.uuid4()}</RequestID></Response>"
    )
    return Answer(refused.status, body.encode(), error=refused.code)


def result(action: str, inner: str) -> Answer:
    """``inner``: XML."""
    body = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<{action}Response xmlns="{NAMESPACE}"><requestId>{uuid.uuid4()}</requestId>{inner}</{action}Response>'
    )
    return Answer(200, body.encode())


def with_next_token(answer: Answer, action: str, token: str | None) -> Answer:
    """The same, saying where the next page begins, if there is one."""
    if token is None or answer.status != 200:
        return answer
    end = f"</{action}Response>".encode()
    head, found, tail = answer.body.rpartition(end)
    return evolve(answer, body=head + f"<nextToken>{token}</nextToken>".encode() + found + tail)


def code_of(body: bytes) -> str:
    """AWS's code in an answer that is an error."""
    found = re.search(rb"<Code>([^<]+)</Code>", body)
    return found[1].decode() if found else "InternalFailure"
