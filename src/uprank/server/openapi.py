"""The OpenAPI document of the application, made of its routes and dialects.

The rerank endpoints read their bodies themselves, so the framework knows nothing of them: what they take is described
by the schema of each :class:`~uprank.server.dialects.base.Body`, what they answer by samples of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, get_args

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import AliasChoices
from pydantic.json_schema import GenerateJsonSchema
from starlette.responses import HTMLResponse, JSONResponse

from uprank.scorers.base import ScoreKind
from uprank.server.dialects.base import Body
from uprank.server.dialects.tei import TeiBody
from uprank.server.reference_page import PAGE_HEADERS, reference_page
from uprank.server.routes import ROUTES, Route
from uprank.server.samples import REFUSALS, REQUEST_ID, objects_in, refusal_sample, reply_samples, schema_of
from uprank.server.settings import ServerSettings

__all__ = ["describe"]

Json = dict[str, Any]  # Any: what an OpenAPI document has

_REFERENCE = "#/components/schemas/{model}"
_PATH_PARAMETER = re.compile(r"\{(\w+)(?::\w+)?\}")
_KEYED: Mapping[str, type[Body]] = {"/v1/models": Body, "/info": TeiBody}
"""What else than rerank routes needs a key, with what is below it, and the dialect in which it says so."""


def describe(app: FastAPI, settings: ServerSettings) -> None:
    """Give an application its OpenAPI document, which is made when it is first asked for.

    Args:
        app: With all its routes by then.
        settings: Its limits and its keys are told, its models are not: a client asks for those with its key.
    """

    @cache
    def document() -> Json:
        described = get_openapi(
            title="uprank",
            version=app.version,
            summary="Rerank server",
            description=_description(settings),
            license_info={"name": "MIT", "identifier": "MIT"},
            servers=[{"url": "/"}],
            routes=[route for route in app.routes if "POST" not in getattr(route, "methods", ())],
        )
        others = described["paths"]
        for path, operations in others.items():
            for operation in operations.values():
                _complete(path, operation, keys=bool(settings.keys))
        parts = _Parts(settings)
        described["paths"] = {
            _PATH_PARAMETER.sub(r"{\1}", path): {"post": parts.operation(route, path)}
            for route in ROUTES
            for path in route.paths
        } | others
        components = described.setdefault("components", {})
        components["schemas"] = {**components.get("schemas", {}), **parts.schemas}
        components["responses"] = parts.responses
        components["headers"] = _HEADERS
        all_operations = [one for told in described["paths"].values() for one in told.values()]
        tags = dict.fromkeys(tag for one in all_operations for tag in one.get("tags", ()))
        described["tags"] = [{"name": tag} for tag in tags]
        if settings.keys:
            components["securitySchemes"] = _SCHEMES
        return described

    app.openapi = document  # type: ignore[method-assign]  # as FastAPI would have it replaced
    if settings.docs:
        page = cache(lambda: reference_page(document()))
        app.add_route("/openapi.json", lambda _: JSONResponse(document()), include_in_schema=False)
        app.add_route("/docs", lambda _: HTMLResponse(page(), headers=PAGE_HEADERS), include_in_schema=False)


_SCHEMES: Json = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
}

_SECURITY: list[Json] = [{name: []} for name in _SCHEMES]

_HEADERS: Json = {
    "X-Request-Id": {
        "description": "Names the request, as the server's log does.",
        "schema": {"type": "string"},
        "example": REQUEST_ID,
    },
    "X-Uprank-Score-Kind": {
        "description": "What the scores of this reply mean.",
        "schema": {"type": "string", "enum": list(get_args(ScoreKind))},
        "example": "probability",
    },
    "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}, "example": 1},
}


def _description(settings: ServerSettings) -> str:
    limits = settings.limits
    tokens = "" if limits.batch_tokens is None else f", about {limits.batch_tokens} tokens in all"
    return (
        "Reorders documents by how well they answer a query, in the formats of other rerank services.\n\n"
        f"A request may have {limits.body_bytes} bytes, {limits.documents} documents of {limits.document_chars} "
        f"characters each and a query of {limits.query_chars} characters{tokens}. "
        f"It is answered within {settings.deadline:g} seconds.\n\n"
        "Every optional field may be null, and 0 as the number of results means all. Fields that are not known are "
        f"{'refused' if settings.unknown_fields == 'refuse' else 'ignored'}."
    )


def _complete(path: str, operation: Json, *, keys: bool) -> None:
    """Add what the framework does not know of an operation whose function takes the request as it is."""
    names = _PATH_PARAMETER.findall(path)
    operation["responses"]["200"]["description"] = "The answer."
    if names:
        operation["parameters"] = [_parameter(name) for name in names]
    dialect = next((one for known, one in _KEYED.items() if path == known or path.startswith(f"{known}/")), None)
    for status in ([404] if names else []) + ([401] if keys and dialect else []):
        content = {"application/json": {"schema": _any_of([_error_name(dialect or Body)])}}
        operation["responses"][str(status)] = {"description": REFUSALS[status][0], "content": content}
    if keys and dialect:
        operation["security"] = _SECURITY
    if "/health" in path and not path.endswith("/live"):
        reply = {**operation["responses"]["200"], "description": "The server is not ready."}
        operation["responses"]["503"] = reply


class _Parts:
    """Operations, and the schemas that they name."""

    def __init__(self, settings: ServerSettings) -> None:
        self._strict = settings.unknown_fields == "refuse"
        self._keys = bool(settings.keys)
        self._statuses = [status for status in REFUSALS if status != 401 or self._keys]
        self.schemas: dict[str, Json] = {"Error": schema_of(refusal_sample(Body, one) for _, one in REFUSALS.values())}
        self.responses: dict[str, Json] = {}

    def operation(self, route: Route, path: str) -> Json:
        """What a client sends to a path, and what it gets."""
        names = _PATH_PARAMETER.findall(path)
        common = (route.bodies[-1], *route.bodies[:-1])  # first what suits most readers
        for body in common:
            self._describe(body)
        told: Json = {
            "operationId": "_".join(re.findall(r"\w+", path)),
            "summary": route.summary,
            "tags": list(dict.fromkeys(_tag(body) for body in common)),
            "requestBody": {"required": True, "content": self._requests(common)},
            "responses": {"200": self._reply(common)},
        }
        if self._keys:
            told["security"] = _SECURITY
        if names:
            told["parameters"] = [_parameter(name) for name in names]
        for status in self._statuses:
            # A parameter that fits no path, as one with a line break in it, is no route's to refuse.
            bodies: tuple[type[Body], ...] = (*common, Body) if names and status == 404 else common
            told["responses"][str(status)] = self._refusal(bodies, status)
        return told

    def _describe(self, body: type[Body]) -> None:
        """Add the schemas of a dialect, once."""
        if body.__name__ in self.schemas:
            return
        self.schemas.update(_body_schemas(body, strict=self._strict))
        replies = [one for pair in reply_samples(body, _path_sample(body)) for one in pair]
        self.schemas[_reply_name(body)] = schema_of(replies, echoes=objects_in(body.examples))
        self.schemas[_error_name(body)] = schema_of(refusal_sample(body, one) for _, one in REFUSALS.values())

    def _requests(self, bodies: Sequence[type[Body]]) -> Json:
        examples = {
            f"{_short(body)}{number or ''}": {"summary": _tag(body), "value": example}
            for body in bodies
            for number, example in enumerate(body.examples)
        }
        return _content(bodies, _any_of(body.__name__ for body in bodies), examples)

    def _reply(self, bodies: Sequence[type[Body]]) -> Json:
        examples = {
            f"{_short(body)}{number or ''}": {"summary": _tag(body), "value": reply}
            for body in bodies
            for number, (reply, _) in enumerate(reply_samples(body, _path_sample(body)))
        }
        content = _content(bodies, _any_of(_reply_name(body) for body in bodies), examples)
        return {
            "description": "The ranking.",
            "headers": _headers("X-Request-Id", "X-Uprank-Score-Kind"),
            "content": content,
        }

    def _refusal(self, bodies: Sequence[type[Body]], status: int) -> Json:
        """A reference to what a route says of a refusal, which most routes say alike."""
        told, refusal = REFUSALS[status]
        examples = {_error_name(body): {"value": refusal_sample(body, refusal)} for body in bodies}
        content = _content(bodies, _any_of(examples), examples)
        headers = _headers("X-Request-Id", *(["Retry-After"] if refusal.retry_after else []))
        packed = "Packed" if any(body.msgpack for body in bodies) else ""
        name = "".join([*examples, packed, str(status)])
        self.responses[name] = {"description": told, "headers": headers, "content": content}
        return {"$ref": f"#/components/responses/{name}"}


def _headers(*names: str) -> Json:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _content(bodies: Sequence[type[Body]], schema: Json, examples: Json) -> Json:
    kinds = ["application/json", *(["application/msgpack"] if any(body.msgpack for body in bodies) else [])]
    return {kind: {"schema": schema, **({"examples": examples} if examples else {})} for kind in kinds}


def _any_of(names: Iterable[str]) -> Json:
    references = [{"$ref": _REFERENCE.format(model=name)} for name in dict.fromkeys(names)]
    return references[0] if len(references) == 1 else {"anyOf": references}


def _parameter(name: str) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}


def _path_sample(body: type[Body]) -> dict[str, str]:
    return dict.fromkeys(_path_names(body), "embedded")


def _path_names(body: type[Body]) -> set[str]:
    """The fields of a body that every path it is spoken on holds."""
    paths = [set(_PATH_PARAMETER.findall(path)) for route in ROUTES if body in route.bodies for path in route.paths]
    return set.intersection(*paths) if paths else set()


def _tag(body: type[Body]) -> str:
    return body.spoken_by or _short(body)


def _short(body: type[Body]) -> str:
    return body.__name__.removesuffix("Body")


def _reply_name(body: type[Body]) -> str:
    return f"{_short(body)}Reply"


def _error_name(body: type[Body]) -> str:
    own: Callable[..., object] = body.refused
    common: Callable[..., object] = Body.refused
    return "Error" if getattr(own, "__func__", own) is getattr(common, "__func__", common) else f"{_short(body)}Error"


def _body_schemas(body: type[Body], *, strict: bool) -> dict[str, Json]:
    """A body's schema and those that it names, by name."""
    schema = body.model_json_schema(ref_template=_REFERENCE, schema_generator=_Untitled)
    schemas: dict[str, Json] = schema.pop("$defs", {})
    properties: dict[str, Json] = schema["properties"]
    required: list[str] = schema.pop("required", [])
    for name in _path_names(body):
        properties.pop(name, None)
        required = [one for one in required if one != name]
    one_of: list[Json] = []
    for names in _alternatives(body):
        known = properties[names[0]]
        properties.update(dict.fromkeys(names, known))
        if names[0] in required:
            required.remove(names[0])
            one_of.append({"anyOf": [{"required": [name]} for name in names]})
    if required:
        schema["required"] = required
    if one_of:
        schema["allOf"] = one_of
    for name, told in properties.items():
        _tell_of_texts(name, told, any_object="rank_fields" in properties)
    if strict:
        properties.update({name: {} for name in body.names() - set(properties)})
        schema["additionalProperties"] = False
    schema["description"] = schema.get("description", "").replace("``", "`")
    return {**schemas, body.__name__: schema}


def _tell_of_texts(name: str, schema: Json, *, any_object: bool) -> None:
    """Add to a field's schema what is checked only later: a query has words, and an object that may be a text has one.

    Args:
        name: The field's.
        schema: Its own; changed.
        any_object: Whether documents may be objects without ``"text"``, having other fields that are read.
    """
    kinds = schema.get("anyOf", [schema])
    if name == "query":
        for kind in kinds:
            if kind.get("type") == "string":
                kind["minLength"] = 1
    if any(kind.get("type") == "string" for kind in kinds) and not any_object:
        for kind in kinds:
            if kind.get("type") == "object":
                text = {"type": "string", **({"minLength": 1} if name == "query" else {})}
                kind.update(properties={"text": text}, required=["text"])
    if "items" in schema:
        _tell_of_texts("", schema["items"], any_object=any_object)


def _alternatives(body: type[Body]) -> list[list[str]]:
    """Fields that go by several names."""
    aliases = [field.validation_alias for field in body.model_fields.values()]
    return [
        [name for name in alias.choices if isinstance(name, str)]
        for alias in aliases
        if isinstance(alias, AliasChoices)
    ]


class _Untitled(GenerateJsonSchema):
    """Schemas whose fields have no titles, which would only repeat their names."""

    def field_title_should_be_set(self, schema: object) -> bool:
        return False
