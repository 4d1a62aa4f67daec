"""The smallest app with a health path."""

import asyncio
import os

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

GENERATION = os.environ.get("STILLUP_GENERATION", "0")


async def home(_):
    return PlainTextResponse("ok\n", headers={"x-gen": GENERATION})


async def ticks(_):
    """Without an end, as a feed is."""

    async def every_second():
        while True:
            yield "tick\n"
            await asyncio.sleep(1)

    return StreamingResponse(every_second(), media_type="text/plain")


app = Starlette(routes=[Route("/", home), Route("/healthz", home), Route("/ticks", ticks)])
