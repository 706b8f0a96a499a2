"""Emulates the cluster's network: forwards the API server's connections to a Service to one of its ready pods.

The API server requests them with HTTP CONNECT on a Unix socket (egress selector). The pods are processes on loopback.
"""

import asyncio
import itertools
import threading

HEAD_BYTES = 16 * 1024


class Network:
    """Forwards connections to pods. `pods` returns the loopback ports of the ready ones."""

    def __init__(self, socket, pods):
        self._socket = socket
        self._pods = pods
        self._turn = itertools.count()
        self.requests = []
        self.port = 0
        self._loop = asyncio.new_event_loop()
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), daemon=True)
        self._thread.start()
        if not started.wait(30):
            raise RuntimeError("the network did not start")

    def close(self):
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, started):
        async def start():
            servers = [await asyncio.start_unix_server(self._connect, path=str(self._socket))]
            # For the controller, which has no egress selector and connects to the Service directly.
            servers.append(await asyncio.start_server(self._service, "127.0.0.1", 0))
            self.port = servers[1].sockets[0].getsockname()[1]
            started.set()
            return servers

        async def end(servers):
            for server in servers:
                server.close()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        asyncio.set_event_loop(self._loop)
        servers = self._loop.run_until_complete(start())
        self._loop.run_forever()
        self._loop.run_until_complete(end(servers))

    async def _connect(self, reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        self.requests.append(head.split(b"\r\n", 1)[0].decode())
        await self._forward(reader, writer, b"HTTP/1.1 200 Connection established\r\n\r\n")

    async def _service(self, reader, writer):
        await self._forward(reader, writer, b"")

    async def _forward(self, reader, writer, greeting):
        pods = self._pods()
        if not pods:
            if greeting:
                writer.write(b"HTTP/1.1 503 No pod is ready\r\n\r\n")
            writer.close()
            return
        port = pods[next(self._turn) % len(pods)]
        try:
            to_pod, from_pod = None, None
            from_pod, to_pod = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.close()
            return
        writer.write(greeting)
        await asyncio.gather(pump(reader, to_pod), pump(from_pod, writer))


async def pump(reader, writer):
    """Copies bytes until the end of the stream."""
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except (ConnectionError, OSError):
        pass
    finally:
        writer.close()
