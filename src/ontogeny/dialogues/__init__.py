"""Dialogues of a chat model with itself: does it keep to its system prompt, and for how many turns?"""

__all__ = ["attention_mass", "instructions", "judges"]
