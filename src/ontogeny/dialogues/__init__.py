"""Dialogues of a chat model with itself: does it keep to its system prompt, for how many turns, and what helps?"""

__all__ = [
    "action_tokens",
    "answers",
    "attention_decay",
    "capability",
    "instructions",
    "judges",
    "measure",
    "mitigated_prompts",
    "mitigations",
    "persona_axis",
    "probes",
    "prompts",
    "rows",
    "self_chat",
    "self_cloning",
    "td3_bc",
]
