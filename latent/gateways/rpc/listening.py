"""How a gRPC server listens: its options, and why it can't (which gRPC itself does not say)."""

from __future__ import annotations

import logging
import socket

import grpc
import grpc.aio

from latent.errors import ConfigError
from latent.wire import calls

OPTIONS = (
    ("grpc.so_reuseport", 0),  # else a second controller shares the port and takes half of the agents
    ("grpc.max_receive_message_length", calls.MAX_MESSAGE),
    ("grpc.max_send_message_length", calls.MAX_MESSAGE),
    ("grpc.server.max_pending_requests", 100_000),  # else a burst of 2,000 calls sees CANCELLED
    ("grpc.server.max_pending_requests_hard_limit", 100_000),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 0),  # stock agents ping as often as they are told to; never cut them off for it
)


GRPC_LOGGER = "grpc._cython.cygrpc"


def worth_logging(record: logging.LogRecord) -> bool:
    """False for what gRPC makes an error of, and is none: the client hung up in the moment in which it was answered."""
    kind = record.exc_info[0] if record.exc_info else None
    return kind is None or kind.__name__ != "ExecuteBatchError"


def listen(server: grpc.aio.Server, protocol: str, bind: str, credentials: grpc.ServerCredentials | None = None) -> int:
    """Give ``server`` the address ``bind``; the port that it got. ``credentials`` None: no TLS. Raises ConfigError."""
    logging.getLogger(GRPC_LOGGER).addFilter(worth_logging)
    try:
        return server.add_insecure_port(bind) if credentials is None else server.add_secure_port(bind, credentials)
    except RuntimeError as error:
        raise ConfigError(f"{protocol}: can't listen on {bind} ({error}); {_remedy(protocol)}") from None


def check_free(protocol: str, bind: str) -> None:
    """Raise ConfigError unless ``bind`` is an address that can be listened on."""
    host, _, port = bind.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"{protocol}: {bind!r} is not an address; write host:port, as in 127.0.0.1:9989")
    host = host.removeprefix("[").removesuffix("]")
    try:
        family, kind, number, _, address = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, number) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except OSError as error:
        raise ConfigError(f"{protocol}: can't listen on {bind} ({error.strerror or error}); {_remedy(protocol)}") from None


def _remedy(protocol: str) -> str:
    return f"stop the program that uses the port, or choose another in c['protocols'][{protocol!r}]"
