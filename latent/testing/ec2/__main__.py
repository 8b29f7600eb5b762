"""The cloud by itself:

    python -m latent.testing.ec2 --state-file FILE [--region NAME] [--port N] [--no-hypervisor] ...

prints where EC2 is, and runs until SIGTERM or SIGINT. FILE then holds, readable by its owner alone, how it can be reached, the
credentials that it takes and the password for orders; `latent.testing.ec2.Cloud.at(FILE)` uses it. Orders may also be given by
hand:

    python -m latent.testing.ec2 --state-file FILE --order throttle '{"rate": 2, "burst": 5, "action": "*"}'
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from typing import Any

from latent.testing.ec2.server import Settings, serve
from latent.testing.ec2.values import Hypervisor


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m latent.testing.ec2", description="EC2 on loopback, for tests")
    parser.add_argument("--state-file", help="where to write how it can be reached")
    parser.add_argument("--region", default="eu-west-1")
    parser.add_argument("--port", type=int, default=0, help="of loopback; by default any that is free")
    parser.add_argument("--pending", type=float, default=0.2, metavar="SECONDS", help="how long an instance is pending")
    parser.add_argument("--ending", type=float, default=0.1, metavar="SECONDS", help="how long it is shutting down or stopping")
    parser.add_argument("--key-id", help="the access key that it takes; by default made up")
    parser.add_argument("--secret", help="its secret")
    parser.add_argument("--no-hypervisor", action="store_true", help="instances only say that they run")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="for the processes of instances")
    parser.add_argument("--order", nargs=2, metavar=("WHAT", "JSON"), help="give an order to the one at the state file")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child:
        serve(Settings.read(json.loads(_first_line())), child=True, say=_say_all)
    elif chosen.order:
        if not chosen.state_file:
            parser.error("--order needs --state-file")
        return _order(chosen.state_file, *chosen.order)
    else:
        environment = dict(one.partition("=")[::2] for one in chosen.env)
        settings = Settings(
            region=chosen.region,
            hypervisor=None if chosen.no_hypervisor else Hypervisor(environment),
            pending=chosen.pending,
            ending=chosen.ending,
            key_id=chosen.key_id,
            secret=chosen.secret,
            port=chosen.port,
            state_file=chosen.state_file,
        )
        serve(settings, child=False, say=_say_endpoint)
    return 0


def _first_line() -> bytes:
    """Of standard input, and no more: what comes later is waited for elsewhere."""
    found = b""
    while not found.endswith(b"\n") and (byte := os.read(sys.stdin.fileno(), 1)):
        found += byte
    return found


def _say_all(state: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(state) + "\n")
    sys.stdout.flush()


def _say_endpoint(state: Mapping[str, Any]) -> None:
    sys.stdout.write(state["endpoint_url"] + "\n")
    sys.stdout.flush()


def _order(state_file: str, what: str, arguments: str) -> int:
    from latent.testing.ec2.cloud import Cloud
    from latent.testing.ec2.values import CloudError

    try:
        answer = Cloud.at(state_file).control(what, **json.loads(arguments))
    except (CloudError, ValueError, TypeError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(json.dumps(answer, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
