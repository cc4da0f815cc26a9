"""The agents, and what each is told so that it finds the server and offers a small model few tools."""

import json
import pathlib
from dataclasses import dataclass, field
from typing import Callable

BIN = pathlib.Path(__file__).parent / "node_modules" / ".bin"
# A whole answer: a small model may not come to an end.
MAX_TOKENS = 300
# In place of Qwen Code's own, behind which the model calls nothing even if it is told how.
SYSTEM = "You are a coding agent. You act only by calling tools."


@dataclass
class Agent:
    """One agent. `url` is the server's, `model` its model; what is called with them returns what it says."""

    name: str
    package: str
    command: Callable  # (prompt) -> arguments
    environment: Callable  # (url, model) -> variables
    tool: str  # one of its own, which reads a file
    arguments: Callable  # (path) -> its arguments
    files: Callable = field(default=lambda url, model: {})  # (url, model) -> path in its home: text


def codex_config(url, model):
    return f"""model = "{model}"
model_provider = "trellis"
model_context_window = 32768
check_for_update_on_startup = false
[model_providers.trellis]
name = "Trellis"
base_url = "{url}/v1"
wire_api = "responses"
request_max_retries = 0
stream_max_retries = 0
[analytics]
enabled = false
"""


def opencode_config(url, model):
    limit = {"context": 32768, "output": MAX_TOKENS}
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "options": {"baseURL": f"{url}/v1", "apiKey": "none"},
        "models": {model: {"tool_call": True, "limit": limit}},
    }
    return json.dumps(
        {
            "autoupdate": False,
            "share": "disabled",
            "provider": {"trellis": provider},
            "model": f"trellis/{model}",
            "small_model": f"trellis/{model}",
            "tools": {"*": False, "read": True, "write": True},
            # A small model says the same call again; here that is no matter.
            "permission": {"doom_loop": "allow"},
        }
    )


AGENTS = [
    Agent(
        name="OpenCode",
        package="opencode-ai",
        command=lambda prompt: ["opencode", "run", "--pure", "--title", "test", prompt],
        environment=lambda url, model: {
            "OPENCODE_DISABLE_AUTOUPDATE": "1",
            "OPENCODE_DISABLE_MODELS_FETCH": "1",
            "OPENCODE_DISABLE_LSP_DOWNLOAD": "1",
        },
        files=lambda url, model: {".config/opencode/opencode.json": opencode_config(url, model)},
        tool="read",
        arguments=lambda path: {"filePath": path},
    ),
    Agent(
        name="Codex",
        package="@openai/codex",
        command=lambda prompt: [
            *["codex", "exec", "--skip-git-repo-check", "--ephemeral"],
            *["--dangerously-bypass-approvals-and-sandbox", prompt],
        ],
        environment=lambda url, model: {},
        files=lambda url, model: {".codex/config.toml": codex_config(url, model)},
        tool="exec_command",
        arguments=lambda path: {"cmd": f"cat {path}"},
    ),
    Agent(
        name="Claude Code",
        package="@anthropic-ai/claude-code",
        command=lambda prompt: ["claude", "-p", prompt, "--tools", "Read,Write", "--allowedTools", "Read,Write"],
        environment=lambda url, model: {
            "ANTHROPIC_BASE_URL": url,
            "ANTHROPIC_API_KEY": "none",
            "ANTHROPIC_MODEL": model,
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "CLAUDE_CODE_MAX_OUTPUT_TOKENS": str(MAX_TOKENS),
        },
        tool="Read",
        arguments=lambda path: {"file_path": path},
    ),
    Agent(
        name="Qwen Code",
        package="@qwen-code/qwen-code",
        command=lambda prompt: [
            *["qwen", "--auth-type", "openai", "--yolo", "--bare", "--system-prompt", SYSTEM],
            *["--exclude-tools", "get_goal", "update_goal", "notebook_edit", "edit", "--prompt", prompt],
        ],
        environment=lambda url, model: {
            "OPENAI_BASE_URL": f"{url}/v1",
            "OPENAI_API_KEY": "none",
            "OPENAI_MODEL": model,
        },
        files=lambda url, model: {
            ".qwen/settings.json": json.dumps(
                {"model": {"generationConfig": {"samplingParams": {"max_tokens": MAX_TOKENS}}}}
            )
        },
        tool="read_file",
        arguments=lambda path: {"file_path": path},
    ),
]
