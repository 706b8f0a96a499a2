"""What stands for the cluster's network: connections of the API server to a Service end at one of its ready pods.

The API server asks for them by HTTP CONNECT on a Unix socket. A pod of this test is a process on loopback.
"""

import asyncio
import itertools
import threading

HEAD_BYTES = 16 * 1024


class Network:
    """Leads connections to pods. `pods` says where the ready ones listen, as a list of ports on loopback."""

    def __init__(self, socket, pods):
        self._socket = socket
        self._pods = pods
        self._turn = itertools.count()
        self.asked = []
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
            # The Service's address, for the controller: it has no egress selector.
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
        self.asked.append(head.split(b"\r\n", 1)[0].decode())
        await self._lead(reader, writer, b"HTTP/1.1 200 Connection established\r\n\r\n")

    async def _service(self, reader, writer):
        await self._lead(reader, writer, b"")

    async def _lead(self, reader, writer, greeting):
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
    """Passes bytes on until there are no more."""
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except (ConnectionError, OSError):
        pass
    finally:
        writer.close()
