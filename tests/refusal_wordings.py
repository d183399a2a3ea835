"""Refusals as users of each server report them: the status, the body, and the features they are about."""

from __future__ import annotations

import json

from uprank.scorers.http.messages import Unreadable


def openai(message: str, param: str | None = None, code: object = None) -> dict[str, object]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}


def vllm(message: str) -> dict[str, object]:
    return {"object": "error", "message": message, "type": "BadRequestError", "param": None, "code": 400}


REFUSALS: list[tuple[str, int, object, set[str]]] = [
    (
        "openai-max-tokens",
        400,
        openai(
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' "
            "instead.",
            "max_tokens",
            "unsupported_parameter",
        ),
        {"max_tokens"},
    ),
    (
        "openai-temperature",
        400,
        openai(
            "Unsupported value: 'temperature' does not support 0.0 with this model. Only the default (1) value is "
            "supported.",
            "temperature",
            "unsupported_value",
        ),
        {"temperature"},
    ),
    (
        "azure-temperature-without-parameter",
        400,
        openai(
            "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) value is "
            "supported."
        ),
        {"temperature"},
    ),
    (
        "openai-system",
        400,
        openai(
            "Unsupported value: 'messages[0].role' does not support 'system' with this model.",
            "messages[0].role",
            "unsupported_value",
        ),
        {"system"},
    ),
    (
        "openai-schema",
        400,
        openai("Invalid parameter: 'response_format' of type 'json_schema' is not supported with this model."),
        {"json_schema"},
    ),
    (
        "openai-invalid-schema",
        400,
        openai(
            "Invalid schema for response_format 'ranking': In context=(), 'required' is required to be supplied.",
            "response_format",
        ),
        {"json_schema"},
    ),
    (
        "openai-invalid-function",
        400,
        openai(
            "Invalid schema for function 'ranking': None is not of type 'array'.",
            "tools[0].function.parameters",
            "invalid_function_parameters",
        ),
        {"tools"},
    ),
    ("openai-logprobs", 400, openai("You are not allowed to request logprobs from this model"), {"logprobs"}),
    ("azure-unknown", 400, openai("Unrecognized request argument supplied: seed"), {"seed"}),
    ("azure-several", 400, openai("Unrecognized request arguments supplied: tool_choice, tools"), {"tools"}),
    (
        "azure-version",
        400,
        {
            "error": {
                "code": "BadRequest",
                "message": "response_format value as json_schema is enabled only for api versions 2024-08-01-preview "
                "and later",
            }
        },
        {"json_schema"},
    ),
    (
        "azure-logprobs",
        400,
        openai(
            "logprobs, best_of and echo parameters are not available on gpt-35-turbo model. Please remove the "
            "parameter and try again."
        ),
        {"logprobs"},
    ),
    (
        "vllm-tools",
        400,
        vllm('"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'),
        {"tools"},
    ),
    ("vllm-logprobs", 400, vllm("Requested sample logprobs of 20, which is greater than max allowed: 5"), {"logprobs"}),
    ("vllm-system", 400, vllm("System role not supported"), {"system"}),
    (
        "vllm-template",
        400,
        vllm("Conversation roles must alternate user/assistant/user/assistant/..."),
        {"system"},
    ),
    (
        "vllm-extra",
        400,
        vllm(
            "[{'type': 'extra_forbidden', 'loc': ('body', 'tool_choice'), 'msg': 'Extra inputs are not permitted', "
            "'input': 'auto'}, {'type': 'extra_forbidden', 'loc': ('body', 'seed'), 'msg': 'Extra inputs are not "
            "permitted', 'input': 'temperature'}]"
        ),
        {"tools", "seed"},
    ),
    (
        "vllm-pydantic",
        400,
        vllm("1 validation error for ChatCompletionRequest\ntop_logprobs\n  Extra inputs are not permitted"),
        {"logprobs"},
    ),
    (
        "vllm-grammar",
        400,
        vllm("The provided JSON schema contains features not supported by xgrammar."),
        {"json_schema"},
    ),
    ("ollama-tools", 400, openai("registry.ollama.ai/library/gemma3:1b does not support tools"), {"tools"}),
    (
        "llama-cpp-jinja",
        500,
        {"error": {"code": 500, "message": "tools param requires --jinja flag", "type": "server_error"}},
        {"tools"},
    ),
    ("llama-cpp-param", 500, {"code": 500, "message": "Unsupported param: tools", "type": "server_error"}, {"tools"}),
    (
        "llama-cpp-format",
        400,
        openai('response_format type must be one of "text" or "json_object", but got: json_schema'),
        {"json_schema"},
    ),
    (
        "lm-studio",
        400,
        {"error": "Invalid tool_choice type: 'object'. Supported string values: none, auto, required"},
        {"tools"},
    ),
    (
        "openrouter-tools",
        404,
        {
            "error": {
                "message": "No endpoints found that support tool use. To learn more about provider routing, visit: "
                "https://openrouter.ai/docs/provider-routing",
                "code": 404,
            }
        },
        {"tools"},
    ),
    (
        "openrouter-choice",
        404,
        {"error": {"message": "No endpoints found that support the provided 'tool_choice' value.", "code": 404}},
        {"tools"},
    ),
    (
        "openrouter-passes-on",
        400,
        {
            "error": {
                "message": "Provider returned error",
                "code": 400,
                "metadata": {
                    "raw": json.dumps(openai("Unsupported parameter", "temperature", "unsupported_parameter")),
                    "provider_name": "OpenAI",
                },
            }
        },
        {"temperature"},
    ),
    (
        "openrouter-passes-on-text",
        400,
        {"error": {"message": "Provider returned error", "metadata": {"raw": "logprobs is not supported by r1"}}},
        {"logprobs"},
    ),
    (
        "deepseek-schema",
        400,
        openai("This response_format type is unavailable now", code="invalid_request_error"),
        {"json_schema"},
    ),
    (
        "deepseek-body",
        422,
        Unreadable(
            "Failed to deserialize the JSON body into the target type: response_format: response_format.type "
            "`json_schema` is unavailable now at line 1 column 1193"
        ),
        {"json_schema"},
    ),
    (
        "gemini",
        400,
        [
            {
                "error": {
                    "code": 400,
                    "message": 'Invalid JSON payload received. Unknown name "frequency_penalty": Cannot find field.\n'
                    'Invalid JSON payload received. Unknown name "seed": Cannot find field.',
                    "status": "INVALID_ARGUMENT",
                }
            }
        ],
        {"seed"},
    ),
    (
        "gemini-logprobs",
        400,
        {"error": {"code": 400, "message": "Logprobs is not enabled for models/gemini-2.5-pro"}},
        {"logprobs"},
    ),
    (
        "gemma-system",
        400,
        {"error": {"code": 400, "message": "Developer instruction is not enabled for models/gemma-3-27b-it"}},
        {"system"},
    ),
    (
        "groq",
        400,
        openai("This model does not support response format `json_schema`. See supported models at https://..."),
        {"json_schema"},
    ),
    (
        "groq-keyword",
        400,
        openai("invalid schema for response format: response_format/json_schema/next: minItems is not supported"),
        {"json_schema"},
    ),
    (
        "mistral",
        422,
        {
            "object": "error",
            "message": {
                "detail": [
                    {"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}
                ]
            },
        },
        {"seed"},
    ),
    (
        "fastapi",
        422,
        {"detail": [{"loc": ["body", "top_logprobs"], "msg": "Input should be less than or equal to 5", "input": 20}]},
        {"logprobs"},
    ),
    ("a-class-of-python", 400, openai("f() got an unexpected keyword argument 'seed'", "seed"), {"seed"}),
]
