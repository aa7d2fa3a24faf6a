"""What the fleet has cost, and whose requests it was for."""

from aiohttp import web

from llmproxy.control.costs import Costs


class CostRoutes:
    """Over the application's ledger."""

    def __init__(self, costs: Costs) -> None:
        self._costs = costs

    def table(self) -> list[web.RouteDef]:
        return [web.get("/admin/costs", self.costs)]

    async def costs(self, request: web.Request) -> web.Response:
        return web.json_response(self._costs.view())
