"""The service's JSON documents, for the fake; a model's responses are in ``chat``, ``responses``, ``messages``.

Laws of this file:

1. Pure. The server sends them.
2. A shape is complete enough that the real opencode and the real Copilot CLI take it. Source:
   docs/copilot-protocol.md#models and what follows there; what the two clients read was tried with opencode 1.18.33
   and Copilot CLI 1.0.102.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

type Json = dict[str, Any]

CHAT = "/chat/completions"
RESPONSES = "/responses"
MESSAGES = "/v1/messages"
COUNT_TOKENS = "/v1/messages/count_tokens"
EMBEDDINGS = "/embeddings"
MODELS = "/models"
SESSION = "/models/session"
INTENT = "/models/session/intent"
AUTO = "/auto"
AUTO_VERSION = "2026-08-01"
"""The ``X-GitHub-Api-Version`` without which ``/auto`` answers 400. Source: docs/copilot-protocol.md#auto-mode."""

BALANCED = (CHAT, RESPONSES, MESSAGES, COUNT_TOKENS, EMBEDDINGS)
"""The paths on which an account is chosen
(docs/how-it-decides.md#which-requests-get-an-account), as the API documents them."""

DEFAULT_MODELS = (
    "gpt-5-mini",
    "gpt-5.4",
    "gpt-4.1",
    "claude-sonnet-4.6",
    "gemini-3-pro-preview",
    "text-embedding-3-small",
)
"""One model or more for each wire, and those that the two real clients ask for on their own."""


# --- the rest of the Copilot API


def embeddings_document(model: str, count: int) -> Json:
    """``count`` short vectors."""
    vectors = [
        {"object": "embedding", "index": index, "embedding": [0.25, -0.5, index / 8, 1.0]} for index in range(count)
    ]
    usage = {"prompt_tokens": count, "total_tokens": count}
    return {"object": "list", "data": vectors, "model": model, "usage": usage}


def supported_endpoints(model: str, *, websocket: bool) -> list[str]:
    """On which wire a model is spoken to: what opencode and the Copilot CLI decide by."""
    if model.startswith("claude"):
        return [MESSAGES, CHAT]
    if model.startswith("gpt-5"):
        return [RESPONSES, "ws:/responses"] if websocket else [RESPONSES]
    return [CHAT]


def models_document(models: Iterable[str], *, websocket: bool = False) -> Json:
    """``GET /models``: entries as in docs/copilot-protocol.md#models."""
    return {"data": [_model(model, websocket) for model in models], "object": "list"}


def _model(model: str, websocket: bool) -> Json:
    entry: Json = {
        "id": model,
        "name": model.replace("-", " ").title(),
        "object": "model",
        "vendor": "Anthropic" if model.startswith("claude") else "Google" if model.startswith("gemini") else "OpenAI",
        "version": model,
        "preview": False,
    }
    if "embedding" in model:
        capabilities = {
            "family": model,
            "limits": {"max_inputs": 512},
            "object": "model_capabilities",
            "supports": {"dimensions": True},
            "tokenizer": "cl100k_base",
            "type": "embeddings",
        }
        billing: Json = {"is_premium": False, "multiplier": 0}
        return {**entry, "billing": billing, "capabilities": capabilities, "model_picker_enabled": False}
    included = model in ("gpt-5-mini", "gpt-4.1", "gpt-4o")
    return {
        **entry,
        "billing": {"is_premium": not included, "multiplier": 0 if included else 1},
        "capabilities": {
            "family": model,
            "limits": {
                "max_context_window_tokens": 200000,
                "max_non_streaming_output_tokens": 16000,
                "max_output_tokens": 32000,
                "max_prompt_tokens": 168000,
            },
            "object": "model_capabilities",
            "supports": {
                "parallel_tool_calls": True,
                "streaming": True,
                "structured_outputs": True,
                "tool_calls": True,
            },
            "tokenizer": "o200k_base",
            "type": "chat",
        },
        "is_chat_default": model == "gpt-4.1",
        "is_chat_fallback": model == "gpt-4.1",
        "model_picker_category": "versatile",
        "model_picker_enabled": True,
        "policy": {"state": "enabled", "terms": "The fake's terms."},
        "supported_endpoints": supported_endpoints(model, websocket=websocket),
    }


def session_document(models: Iterable[str], token: str, expires_at: int) -> Json:
    """``/models/session``: Auto mode's models, and the token that its requests carry.

    Source: docs/copilot-protocol.md#auto-mode.
    """
    available = [model for model in models if "embedding" not in model]
    return {
        "available_models": available,
        "selected_model": next(iter(available), None),
        "session_token": token,
        "expires_at": expires_at,
        "discounted_costs": {},
    }


def auto_document(model: str, token: str, expires_at: int) -> Json:
    """``/auto``: the model for one prompt, as a whole entry, and the token that its chats carry.

    Source: docs/copilot-protocol.md#auto-mode.
    """
    return {
        "session_token": token,
        "expires_at": expires_at,
        "selected_model": _model(model, False),
        "hydra_scores": {"reasoning": 0.2, "code_gen": 0.5, "debugging": 0.1, "tool_use": 0.2},
        "discounted_costs": {},
    }


def intent_document(models: Iterable[str]) -> Json:
    """``/models/session/intent``: which of them Auto mode takes for a prompt."""
    available = [model for model in models if "embedding" not in model]
    return {
        "chosen_model": next(iter(available), None),
        "candidate_models": available,
        "predicted_label": "no_reasoning",
    }


# --- GitHub's side


@dataclass(frozen=True)
class Quota:
    """One quota of an account, as it stands in headers and in ``/copilot_internal/user``."""

    percent_left: float
    entitlement: int = 300
    """-1: unlimited."""
    resets: str = "2030-01-01T00:00:00Z"

    @property
    def remaining(self) -> float:
        """Absolute number left; -1 when there is no limit."""
        return -1 if self.entitlement < 0 else round(self.entitlement * self.percent_left / 100, 1)


def quota_headers(quotas: Mapping[str, Quota]) -> list[tuple[str, str]]:
    """``x-quota-snapshot-NAME: ent=...&rem=...`` (docs/copilot-protocol.md#quota-headers)."""
    return [
        (
            f"x-quota-snapshot-{name}",
            urlencode(
                {
                    "ent": quota.entitlement,
                    "ov": 0.0,
                    "ovPerm": "false",
                    "rem": quota.percent_left,
                    "rst": quota.resets,
                    "totRem": quota.remaining,
                }
            ),
        )
        for name, quota in quotas.items()
    ]


def user_document(login: str, user_id: int) -> Json:
    """``GET /user``: who a token is."""
    return {"login": login, "id": user_id, "type": "User", "name": login, "site_admin": False}


def copilot_user_document(login: str, plan: str, endpoints: Mapping[str, str], quotas: Mapping[str, Quota]) -> Json:
    """``GET /copilot_internal/user``: plan, endpoints, quotas (docs/copilot-protocol.md#account-document)."""
    snapshots = {
        name: {
            "quota_id": name,
            "entitlement": quota.entitlement,
            "remaining": int(quota.remaining),
            "quota_remaining": quota.remaining,
            "percent_remaining": quota.percent_left,
            "unlimited": quota.entitlement < 0,
            "overage_count": 0,
            "overage_permitted": False,
            "has_quota": quota.percent_left > 0,
        }
        for name, quota in quotas.items()
    }
    reset = next((quota.resets for quota in quotas.values()), Quota(100).resets)
    return {
        "login": login,
        "access_type_sku": "monthly_subscriber_quota",
        "copilot_plan": plan,
        "chat_enabled": True,
        "is_mcp_enabled": True,
        "assigned_date": None,
        "can_signup_for_limited": False,
        "organization_login_list": [],
        "organization_list": [],
        "endpoints": dict(endpoints),
        "quota_reset_date": reset[:10],
        "quota_reset_date_utc": reset,
        "quota_snapshots": snapshots,
    }


def exchanged_document(token: str, expires_at: int, refresh_in: int, endpoints: Mapping[str, str]) -> Json:
    """``GET /copilot_internal/v2/token``: a short-lived token (docs/copilot-protocol.md#token-exchange)."""
    return {
        "token": token,
        "expires_at": expires_at,
        "refresh_in": refresh_in,
        "sku": "monthly_subscriber_quota",
        "individual": True,
        "chat_enabled": True,
        "endpoints": dict(endpoints),
        "limited_user_quotas": None,
        "limited_user_reset_date": None,
    }
