"""A bot as a program: a payload is a script, which it runs; its result is an ActionResult with what the script wrote."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import grpc

sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.gateways.bots.client import Bot, M

RESULT = "type.googleapis.com/build.bazel.remote.execution.v2.ActionResult"


async def work(lease):
    program = await asyncio.create_subprocess_exec(
        "bash",
        "-c",
        lease.payload.value.decode(),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        said, _ = await program.communicate()
    except asyncio.CancelledError:
        os.killpg(program.pid, signal.SIGKILL)
        await program.wait()
        raise
    return RESULT, M["ActionResult"](exit_code=program.returncode, stdout_raw=said).SerializeToString()


async def main(environ):
    """Exits with 0 when it was ended or has lost its session, as stock bots do, and with 1 when it was refused."""
    bot = Bot(
        environ["LATENT_BOTS_SERVER"],
        work,
        bot_id=environ["LATENT_WORKER"],
        token=environ["LATENT_BOT_TOKEN"],
        instance=environ["LATENT_BOTS_INSTANCE"],
        capacity=int(environ.get("LATENT_CAPACITY", "1")),
    )
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    async with bot:
        ending, gone = asyncio.ensure_future(told.wait()), asyncio.ensure_future(bot.gone())
        await asyncio.wait({ending, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not gone.done():
            gone.cancel()
            await bot.terminate()
            return 0
        ending.cancel()
        print(f"gone: {bot.ended}", file=sys.stderr, flush=True)
        return 1 if isinstance(gone.exception(), grpc.aio.AioRpcError) else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(os.environ)))
