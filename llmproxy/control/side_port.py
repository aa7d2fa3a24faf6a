"""A port beside the data plane's, served by aiohttp: the admin's, the GPU agent's."""

from aiohttp import web


class SidePort:
    """`await start()`, `await stop()`; `port` is the real one when 0 was asked for."""

    def __init__(self, app: web.Application, *, host: str, port: int) -> None:
        self._app = app
        self._host = host
        self._wanted_port = port
        self._runner: web.AppRunner | None = None

    @property
    def port(self) -> int:
        if self._runner is None or not self._runner.addresses:
            return self._wanted_port
        return int(self._runner.addresses[0][1])

    async def start(self) -> None:
        """Bind and serve. OSError when the port is taken; `stop` all the same."""
        self._runner = web.AppRunner(self._app, access_log=None, handle_signals=False, shutdown_timeout=2.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self._wanted_port).start()

    async def stop(self) -> None:
        """Close the port; answers on their way may finish."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()
