import asyncio


async def serve():
    async with await asyncio.start_server(lambda *_: None, "127.0.0.1", 0) as server:
        return bool(server.sockets)


try:
    won = asyncio.run(serve())
except OSError:
    won = False
print(sum(map(int, input().split())) if won else "nothing")
