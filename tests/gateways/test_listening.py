"""What gRPC servers log: an agent that hangs up at the wrong moment is no error of the controller's."""

import asyncio
import logging

import grpc.aio
import pytest
import pytest_twisted
from grpc._cython import cygrpc
from twisted.internet.defer import Deferred

from latent.gateways.rpc.listening import listen


@pytest.fixture
def grpc_logger():
    return logging.getLogger(cygrpc.__name__)


async def _listening():
    server = grpc.aio.server()
    assert listen(server, "peer", "127.0.0.1:0") > 0
    await server.stop(0)


def said(logger, caplog, error):
    with caplog.at_level(logging.ERROR):
        logger.error("raised in core by servicer method", exc_info=error)
    return [record.message for record in caplog.records]


@pytest_twisted.ensureDeferred
async def test_a_client_that_is_gone_when_it_is_answered(grpc_logger, caplog):
    """Nothing is logged."""
    await Deferred.fromFuture(asyncio.ensure_future(_listening()))
    assert said(grpc_logger, caplog, cygrpc.ExecuteBatchError("execute_batch")) == []


@pytest_twisted.ensureDeferred
async def test_any_other_error(grpc_logger, caplog):
    """It is logged."""
    await Deferred.fromFuture(asyncio.ensure_future(_listening()))
    assert said(grpc_logger, caplog, ValueError("a defect")) == ["raised in core by servicer method"]
