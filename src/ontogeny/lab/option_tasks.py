"""The option tasks by name: where each file comes from, pinned and verified; ONTOGENY_DATA names a folder that is read instead."""

from collections.abc import Mapping

from ontogeny.concepts._data import Source

FOUNDRY, FOUNDRY_AT = "mosaicml/llm-foundry", "8c8dd48f72168c5d51e2f7b151595892a8fba43d"


def _foundry(file: str, path: str, sha256: str) -> Source:
    return Source(f"general/{file}", FOUNDRY, f"scripts/eval/local_data/{path}", FOUNDRY_AT, sha256)


TASKS: Mapping[str, Source] = {
    "arc_easy": _foundry(
        "arc_easy_test.jsonl.gz",
        "world_knowledge/arc_easy.jsonl",
        "d2d12e59543acf9a5ef6079634a72b30215e36c2fd4236fff3bc855d287b87f5",
    ),
    "arc_challenge": _foundry(
        "arc_challenge_test.jsonl.gz",
        "world_knowledge/arc_challenge.jsonl",
        "1ae3aeedf1951d881cbd5c2e3a31e78a1993d251479afbe4cb413b6707244636",
    ),
    "lambada": _foundry(
        "lambada_openai_test.jsonl.gz",
        "language_understanding/lambada_openai.jsonl",
        "411bfbe5b9054346b6a19299c0242670adbefb9162efd958593cbc0290b8c9dc",
    ),
    "piqa": _foundry(
        "piqa_validation.jsonl.gz",
        "commonsense_reasoning/piqa.jsonl",
        "d2870e73aec5154df3faf259b7700876e11608eebdf69e9d6667435673dbe4e0",
    ),
    "copa": _foundry(
        "copa_validation.jsonl",
        "commonsense_reasoning/copa.jsonl",
        "595dca44dec54c849490bd403a3e24a29e3b944065783222ebb0eb1a55298846",
    ),
    "winogrande": _foundry(
        "winogrande_validation.jsonl.gz",
        "language_understanding/winogrande.jsonl",
        "ea1592526f3bfdd0948ed3acb1b4dfa3f83d23698917118688ee1df7f8d4b8d7",
    ),
    "boolq": Source(
        "general/boolq_dev.jsonl.gz",
        "frankxwang/probing-experiments",
        "dev.jsonl",
        "b7eb5a9f55e266503b18778bd3b9c1c6b314aea1",
        "ebc29ea3808c5c611672384b3de56e83349fe38fc1fe876fd29b674d81d0a80a",
    ),
    # A folder of one file a subject: it cannot be fetched as one, and is read from ONTOGENY_DATA alone.
    "mmlu": Source("general/mmlu_test.csv.gz", "HaeChan0305/MLILAB-FedLLM", "data/mmlu/test/", "d92730e8bacd", None),
}
