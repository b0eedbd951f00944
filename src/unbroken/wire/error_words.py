"""What words in providers' errors mean: statuses, classes, and sentences where no code is sent."""

STATUS_OF: dict[str, int] = {
    # OpenAI ("Error codes"), Anthropic ("Errors"), vLLM's class names
    "invalid_request_error": 400,
    "BadRequestError": 400,
    "authentication_error": 401,
    "invalid_api_key": 401,
    "billing_error": 402,
    "insufficient_quota": 429,
    "permission_error": 403,
    "not_found_error": 404,
    "model_not_found": 404,
    "NotFoundError": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "rate_limited": 429,  # Mistral
    "requests": 429,
    "tokens": 429,
    "api_error": 500,
    "server_error": 500,
    "internal_error": 500,
    "InternalServerError": 500,
    "timeout_error": 504,
    "overloaded": 529,
    "overloaded_error": 529,
    # Google (google.rpc.Code)
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
    # MiniMax (platform.minimax.io: error codes)
    "1002": 429,
    "1004": 401,
    "1008": 402,
    "1039": 429,
    "2013": 400,
    "2049": 401,
    # Z.ai (docs.z.ai: errors)
    "1113": 429,
    "1211": 404,
    "1261": 400,
    "1301": 400,
    "1302": 429,
    "1305": 429,
    "1308": 429,
}
"""Words of `type`, `code` or `status`, and the status they stand for. Where the number itself is a
word, as with OpenRouter, vLLM and Mistral, it needs no entry."""

CLASS_OF: dict[str, str] = {
    "context_length_exceeded": "too_long",
    "exceed_context_size_error": "too_long",  # llama.cpp
    "model_max_prompt_tokens_exceeded": "too_long",  # GitHub Models
    "1261": "too_long",  # Z.ai
    "content_filter": "filtered",
    "content_policy_violation": "filtered",
    "data_inspection_failed": "filtered",  # DashScope
    "1301": "filtered",  # Z.ai
    "insufficient_quota": "no_money",
    "billing_error": "no_money",
    "billing_hard_limit_reached": "no_money",
    "exceeded_current_quota_error": "no_money",  # Moonshot
    "insufficient_balance_error": "no_money",  # MiniMax (modelscope/modelscope#1691)
    "insufficient_balance": "no_money",
    "insufficient_credits": "no_money",
    "1008": "no_money",  # MiniMax
    "1113": "no_money",  # Z.ai
    "Arrearage": "no_money",  # DashScope
    "AccountOverdueError": "no_money",  # Volcengine
}
"""Words whose meaning no status has."""

NO_MONEY = (
    "insufficient balance",
    "insufficient credit",
    "insufficient fund",
    "insufficient_quota",
    "credit balance",  # Anthropic
    "balance is not enough",
    "balance not enough",
    "not enough credit",
    "no resource package",  # Z.ai
    "out of credits",
    "run out of credits",
    "used all available credits",  # xAI
    "requires more credits",  # OpenRouter
    "please recharge",
    "payment required",
    "account is in arrears",
    "billing hard limit",
)
"""Sentences about an empty account, in lower case."""

TOO_LONG = (
    "prompt is too long",  # Anthropic
    "input is too long",  # Bedrock
    "input length and `max_tokens` exceed",  # Anthropic
    "maximum context length",  # OpenAI, vLLM, DeepSeek
    "maximum prompt length",  # xAI
    "context window",
    "context length",
    "context size",  # llama.cpp
    "longer than the model's context",  # SGLang
    "input token count",  # Gemini
    "exceeds the maximum number of tokens",  # Gemini
    "exceeds the limit of",  # GitHub Copilot
    "token limit exceeded",  # Moonshot
    "exceeded model token limit",  # Moonshot
    "max_tokens allowed",
    "max tokens allowed",  # Z.ai (anomalyco/opencode#27629)
    "too many tokens",  # Cohere, Bedrock
    "reduce the length of",  # OpenAI, Groq
    "range of input length should be",  # DashScope
    "prompt tokens exceed",
    "prompt contains too many tokens",
    "tokens. please reduce",
    "too large for model with",  # Mistral
)
"""Sentences about a prompt that is too long, in lower case; many providers have no code for it."""
