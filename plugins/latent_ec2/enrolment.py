"""The script by which an instance becomes the worker that it was started for. It runs in the instance, as root, at its boot.

It holds a row for each member of the launch: worker, attempt, token. Which is the instance's own, its metadata tell it
(ami-launch-index). What it needs is a POSIX shell and curl, or GNU wget, or Python.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from latent.errors import ConfigError
from latent.worker.words import shown

ROWS = "LATENT_ROWS"
"""What the rows end with; a line that is nowhere else in the user data."""

ORPHANED = 4
"""What latent-agent ends with when it has found no controller for its --orphan-timeout."""

OWN = {
    **dict.fromkeys(("LATENT_WORKER", "WORKERNAME", "WOODPECKER_HOSTNAME"), 1),
    "LATENT_ATTEMPT": 2,
    **dict.fromkeys(("LATENT_TOKEN", "WORKERPASS", "WOODPECKER_AGENT_SECRET", "LATENT_BOT_TOKEN"), 3),
}
"""The variables that each member has its own of, and where in its row they are. What all share may not have them."""

_HEAD = """\
#!/bin/sh
# Written by latent: finds out which worker this instance is, and starts its agent.
say() { echo "latent: $*"; }
imds=${AWS_EC2_METADATA_SERVICE_ENDPOINT:-http://169.254.169.254}
imds=${imds%/}/latest
ask() {
  if command -v curl >/dev/null; then
    curl -fs -m 5 --noproxy '*' -X "$1" -H "$3" "$imds/$2"
  elif command -v wget >/dev/null; then
    wget -q -T 5 -t 1 -O - --no-proxy --method="$1" --header="$3" "$imds/$2"
  else
    python3 -c 'import sys, urllib.request as u
m, a, h = sys.argv[1:]
r = u.Request(a, method=m, headers=dict([h.split(": ")]))
print(u.build_opener(u.ProxyHandler({})).open(r, timeout=5).read().decode(), end="")' "$1" "$imds/$2" "$3" 2>/dev/null
  fi
}
metadata() {
  session=$(ask PUT api/token 'X-aws-ec2-metadata-token-ttl-seconds: 60') || return 1
  ask GET "$1" "X-aws-ec2-metadata-token: $session"
}
"""

_USER_SCRIPT = """\
own=$(mktemp) && cat >"$own" <<'%(end)s'
%(script)s
%(end)s
chmod 700 "$own" && "$own" || say "user_data ended with $?"
rm -f "$own"
"""

_TABLE = """\
table() {
  cat <<'%(end)s'
%(rows)s
%(end)s
}
rows=$(table)
index=0
"""

_INDEX = """\
tries=0
until index=$(metadata meta-data/ami-launch-index); do
  tries=$((tries + 1))
  if [ "$tries" -ge 60 ]; then
    say "the metadata do not tell which instance of its launch this is"
    exit 1
  fi
  sleep 1
done
"""

_AGENT = """\
export HOME="${HOME:-/root}"
%(exports)s
if [ "$PWD" = / ]; then
  mkdir -p /var/lib/latent-agent && cd /var/lib/latent-agent
fi
attach() {
  set -- $(echo "$rows" | sed -n "$((index + 1))p")
  if [ $# -ne 3 ]; then
    say "there is no member $index in this launch"
    return 1
  fi
  export %(own)s
  say "this is attempt $2 of worker $1"
  sh -c %(command)s &
  agent=$!
  trap 'kill -TERM $agent 2>/dev/null' TERM INT
%(watch)s  wait $agent
  code=$?
  while kill -0 $agent 2>/dev/null; do
    wait $agent
    code=$?
  done
  trap - TERM INT
%(unwatch)s  say "its agent ended with $code"
  if [ "$code" = %(orphaned)s ]; then
    say "no controller answers any more: this instance shuts itself down"
    shutdown -h now || poweroff
  fi
}
"""

# Beside the agent: tells it to stop when something has happened.
_WATCH = """\
  (
    trap - TERM INT
    until happened; do
      kill -0 $agent 2>/dev/null || exit
      sleep %(seconds)s
    done
    kill -TERM $agent
  ) &
  watcher=$!
"""

_UNWATCH = """\
  kill $watcher 2>/dev/null
  wait $watcher 2>/dev/null
"""

_SPOT = """\
happened() {
  notice=$(metadata meta-data/spot/instance-action) && say "spot interruption: $notice"
}
"""

_ONCE = """\
{ attach; } </dev/null &
"""

# A hibernated instance goes on where it was: its agent's session is closed, and the next attempt's row is in its user data.
_HIBERNATED = """\
happened() {
  fresh=$(metadata user-data | sed -n '/<<.%(end)s.$/,/^%(end)s$/p' | sed '1d;$d')
  [ -n "$fresh" ] && [ "$fresh" != "$rows" ]
}
"""

_AGAIN = """\
{
  while attach || :; do
    until happened; do sleep %(seconds)s; done
    rows=$fresh
    index=0
  done
} </dev/null &
"""

NOTICE_INTERVAL = 5
"""Seconds between two looks for a spot interruption notice, as AWS recommends; also for what comes after a hibernation."""


def rows(members: Sequence[tuple[str, int, str]]) -> str:
    """(worker, attempt, token) of each member, in order. None of them has a blank in it."""
    return "\n".join(f"{worker} {attempt} {token}" for worker, attempt, token in members)


def script(
    members: Sequence[tuple[str, int, str]],
    variables: Mapping[str, str],
    command: str,
    *,
    spot: bool = False,
    hibernates: bool = False,
    user_script: str | None = None,
) -> str:
    """The whole script. ``variables``: those that all members share. ``command``: for the shell (`command_line`).

    ``spot`` and ``hibernates`` exclude each other.
    """
    names = {
        "end": ROWS,
        "rows": rows(members),
        "exports": "\n".join(f"export {name}={shlex.quote(value)}" for name, value in sorted(variables.items())),
        "own": " ".join(f'{name}="${column}"' for name, column in OWN.items()),
        "command": shlex.quote(command),
        "seconds": NOTICE_INTERVAL,
        "orphaned": ORPHANED,
        "watch": _WATCH % {"seconds": NOTICE_INTERVAL} if spot or hibernates else "",
        "unwatch": _UNWATCH if spot or hibernates else "",
    }
    parts = [_HEAD]
    if user_script is not None:
        end = "LATENT_USER_DATA"
        while end in user_script:
            end += "_"
        parts.append(_USER_SCRIPT % {"end": end, "script": user_script.rstrip("\n")})
    parts.append(_TABLE % names)
    if len(members) > 1:
        parts.append(_INDEX)
    if spot or hibernates:
        parts.append(_HIBERNATED % names if hibernates else _SPOT)
    parts.append(_AGENT % names)
    parts.append(_AGAIN % names if hibernates else _ONCE)
    return "".join(parts)


def command_line(value: Any) -> str:
    """What the shell is given to run the agent: a string is a command line, a list the arguments of a program."""
    remedy = "write a command line, 'latent-agent', or a list of arguments"
    if isinstance(value, str) and value.strip() and "\0" not in value:
        # Where it is one program, the shell makes way for it: it is the agent that is to hear signals.
        return value if re.search(r"[;&|<>(){}\n`]|^\s*(exec|if|for|while|case|cd|\.|set)\b", value) else f"exec env {value}"
    if isinstance(value, list | tuple) and value and all(isinstance(one, str) and one and "\0" not in one for one in value):
        return f"exec {shlex.join(value)}"
    raise ConfigError(f"agent_command is {shown(value)}; {remedy}")
