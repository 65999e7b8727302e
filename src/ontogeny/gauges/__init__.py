"""Gauges: what a model takes its user and itself to be, read from a conversation by calibrated probes, and turned by control vectors."""

__all__ = [
    "begun_answers",
    "chat_template",
    "control_check",
    "control_vector",
    "conversation",
    "fitting",
    "gauge",
    "labelled_chats",
    "labels",
    "pack",
    "packing",
    "pin",
    "prompt_states",
    "reading",
    "replies",
    "three_splits",
    "turn_reading",
]
