"""Keys, for administrators, and share links, for their owners.

    POST   /v1/keys           {"name", "limits": {...}, "admin", "expires_in"}; shown once
    GET    /v1/keys           every key with its limits and what it has used
    DELETE /v1/keys/NAME      revokes it; its open answers stop within 8 seconds
    GET    /v1/shares         one's own share links, the youngest first: ?before=
    DELETE /v1/shares/ID      revokes a link

Keys need an administrator's key (`unbroken keys create NAME --admin`); it can't revoke itself.
"""

from typing import Any

import msgspec
from starlette.requests import Request as HttpRequest
from starlette.responses import Response as HttpResponse
from starlette.routing import Route

from unbroken.errors import BadRequest, ConfigurationError, NotFound
from unbroken.ready import ready
from unbroken.server.auth import KeyLimits, NewKey, Principal, check_admin, principal_of
from unbroken.server.bodies import read_body
from unbroken.server.endpoints import parse_int, with_error_handling
from unbroken.server.gateway import Gateway, gateway_of
from unbroken.server.log import log_event
from unbroken.server.usage import UsageTotals

MAX_BODY = 64 * 1024
"""Bytes of a request to create a key."""

_encode = msgspec.json.Encoder().encode


@ready
class _Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    limits: KeyLimits = KeyLimits()
    admin: bool = False
    expires_in: float | None = None


def _json(body: Any, status: int = 200) -> HttpResponse:
    return HttpResponse(_encode(body), status, media_type="application/json")


async def _administrator(http: HttpRequest) -> tuple[Gateway, Principal]:
    server = gateway_of(http)
    principal = await server.caller(http)
    check_admin(principal)
    return server, principal


@with_error_handling
async def _create(http: HttpRequest) -> HttpResponse:
    server, admin = await _administrator(http)
    try:
        body = msgspec.json.decode(await read_body(http.stream(), MAX_BODY), type=_Body)
        new = NewKey(
            name=body.name, limits=body.limits, admin=body.admin, expires_in=body.expires_in
        )
        key = await server.keys.create(new)
    except (msgspec.DecodeError, UnicodeDecodeError, ConfigurationError) as error:
        raise BadRequest(str(error), status=400, code="invalid_request_error") from error
    log_event("key_created", name=new.name, by=admin.name, admin=new.admin)
    return _json({"object": "key", "name": new.name, "key": key}, 201)


@with_error_handling
async def _list(http: HttpRequest) -> HttpResponse:
    server, _ = await _administrator(http)
    found = await server.keys.all()
    owners = [info.id for info in found]
    days, minutes = await server.keys.usage(owners), await server.keys.usage(owners, "minute")
    keys = [principal_of(info, server.keys.limits) for info in found]
    rows = [_described(*row) for row in zip(keys, days, minutes, strict=True)]
    return _json({"object": "list", "data": rows})


@with_error_handling
async def _revoke(http: HttpRequest) -> HttpResponse:
    server, admin = await _administrator(http)
    name = http.path_params["name"]
    if name == admin.name:
        raise BadRequest("A key can't revoke itself.", status=409, code="own_key")
    try:
        await server.keys.revoke(name)
    except ConfigurationError as error:
        raise NotFound(str(error), status=404) from error
    log_event("key_revoked", name=name, by=admin.name)
    return HttpResponse(status_code=204)


def _described(key: Principal, day: UsageTotals, minute: UsageTotals) -> dict[str, Any]:
    return {
        "object": "key",
        "name": key.name,
        "admin": key.admin,
        "expires": int(key.expires) or None,
        "limits": key.limits.given(),
        "used_today": msgspec.structs.asdict(day),
        "used_this_minute": msgspec.structs.asdict(minute),
    }


@with_error_handling
async def _links(http: HttpRequest) -> HttpResponse:
    server = gateway_of(http)
    principal = await server.caller(http)
    before = http.query_params.get("before")
    page, following = await server.shares.all(
        principal.owner, parse_int(before) if before else None
    )
    return _json({"object": "list", "data": page, "next": following})


@with_error_handling
async def _revoke_link(http: HttpRequest) -> HttpResponse:
    server = gateway_of(http)
    principal = await server.caller(http)
    link = http.path_params["id"]
    if not await server.shares.revoke(principal.owner, link):
        raise NotFound(f"No share link has the id {link!r}.", status=404)
    log_event("share_revoked", id=link, by=principal.name)
    return HttpResponse(status_code=204)


routes = [
    Route("/v1/keys", _create, methods=["POST"]),
    Route("/v1/keys", _list, methods=["GET"]),
    Route("/v1/keys/{name}", _revoke, methods=["DELETE"]),
    Route("/v1/shares", _links, methods=["GET"]),
    Route("/v1/shares/{id}", _revoke_link, methods=["DELETE"]),
]
