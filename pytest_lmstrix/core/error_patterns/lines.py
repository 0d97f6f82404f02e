"""Lines that mention errors without being one, and lines about a chat template: data."""

from __future__ import annotations

NOISE: tuple[str, ...] = (
    # Out of memory, but recovered: earlier text is irrelevant.
    r"\A[\s\S]*(?:alloc|memory|buffer|reserve).{0,80}"
    r"(?:retry|trying again|fall(?:ing|s)? ?back).*",
    # Locking or pinning memory, or all layers on the GPU, is optional.
    r"^.*\b(?:mlock|munlock|VirtualLock|RLIMIT_MEMLOCK|pinned memory)\b.*",
    r"^.*(?:memory|vram)\b.{0,80}\b(?:skipping|didn't recover)\b.*",
    # Failures with a working fallback.
    r"^.*\b(?:trying next|falling back to|deferring|will be ignored)\b.*",
    # A backend without a device: another one, or the CPU, takes over.
    r"^.*\bggml_\w*init\w*: failed to initiali[sz]e.*|^(?!.*\btensile\b).*\bno devices found\b.*",
    r"^.*\bhead failed, status\b.*|^.*\b(?:fallback to|using the) cpu\b.*",
    # Guesses.
    r"\bif you (?:get|see|encounter) .*"
    r"|\b(?:can|may|might|could) (?:also )?(?:happen|occur|be (?:caused|due|because))\b.*",
    r"^.*\b(?:common|possible|potential|typical) (?:causes|reasons)\b.*",
    # Remarks about the training of the model.
    r"^.*(?:n_ctx\w*\W.{0,40}n_ctx_train|training context).*",
    # Names of functions and files in stack traces.
    r"^[ \t]+at .{1,300}?:\d+:\d+",
    # An unparsable tool call quotes the model.
    r"^.*\b(?:pars|generat)\w* (?:\w+ )?tool[ _-]?call.*|^ ?model output:.*",
    r"(?:avoid|prevent|without|in case of|if you're)(?: \w+){0,3} out[ -]of[ -](?:memory|v?ram)",
)
"""Removed from a text first: mentions errors without being one."""

TEMPLATE = (
    r"^.*(?:\bjinja2?\b|\b(?:chat|prompt)[ _-]templates?\b"
    r"|\btemplate(?:syntax|runtime|assertion)?[ _]?error\b"
    # The place in its source, which llama.cpp quotes on lines of their own.
    r"|\bwhile executing \w+ at line \d|\braise_exception\b|\{%|%\}"
    r"|\bautomatic parser generation\b|\bunknown (?:\w+ )?(?:test|filter): \S"
    r"|\bminja\b|\bcommon_chat_templates?_|\brender(?:ing)? (?:the )?prompt\b|\bat row \d+\b"
    r"|\btemplate: ?\S*:\d+:|\bparser error: \w*expected\b"
    r"|\bundefined values?\b|\b(?:got|type):? (?:undefined|null|none|string|object)value\b"
    r"|\bno user (?:query|message)s? (?:was )?found\b"
    r"|\broles? must (?:strictly )?alternate|\bunexpected (?:message )?role\b"
    r"|\b(?:first|last) message must\b|\bmessages must (?:start|begin|end)\b"
    r"|\bexpected \w+ role to\b|\bonly user,? (?:and )?(?:model|assistant|tool)\b.{0,40}\broles?\b"
    r"|\bsystem (?:role|message|prompt)s?\b.{0,20}\b(?:not supported|must be|must come)"
    # What the templates of well-known models raise.
    r"|\bpassed a message containing\b|\bcannot pass both content and\b"
    r"|\btool call ids should be\b|\bonly supports single tool-calls\b|\bcannot put tools in\b"
    r"|\bunexpected item type in content\b).*"
)
"""A line about the chat template; the rest of the line quotes the template."""

TEMPLATE_WARNING = (
    r"\b(?:fall(?:ing|s)? ?back|fallback|warn(?:ing)?|using default|will be ignored)\b"
)
"""Marks such a line as a warning."""
