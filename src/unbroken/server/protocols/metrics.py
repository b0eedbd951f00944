"""GET /metrics: for Prometheus. The figures are of this process alone."""

from starlette.requests import Request as HttpRequest
from starlette.responses import Response as HttpResponse
from starlette.routing import Route

from unbroken.metrics.prometheus import CONTENT_TYPE
from unbroken.server.gateway import gateway_of


async def _metrics(http: HttpRequest) -> HttpResponse:
    server = gateway_of(http)
    answers = server.answers
    page = server.board.page(open_=len(answers.producers), followers=answers.readers.total)
    return HttpResponse(page, media_type=CONTENT_TYPE)


routes = [Route("/metrics", _metrics, methods=["GET"])]
