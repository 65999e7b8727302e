r"""A chat turn with six gauges compared with the model's own generation of the same answer, as ratios within one process.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/chat_turn.py --model runs/demo/sft/checkpoint-150 \
        --template runs/demo/chat_template.jinja

The model of a folder, and a random GPT-NeoX of 8 blocks × 512 that answers with 40 tokens. Its own generation is what a script does:
render the chat, tokenize, `generate`, decode. A turn is all that `answer_and_read` does, with six gauges of random weights at several
sites, read at the end of the user's turn, or after a begun answer of their own, each about another word of the tokenizer. What a pin adds
is measured apart: the steered answer and its random twin, each with its side-effect meter. CPU seconds, rounds that take turns, a ratio
inside each round; median, least and greatest. The process that renders templates is not counted (0.1 ms a turn).
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from transformers import GenerationConfig, GPTNeoXConfig, GPTNeoXForCausalLM

from ontogeny.direction import Direction
from ontogeny.gauges.gauge import CalibratedProbe, Gauge
from ontogeny.gauges.labels import GaugeLabel
from ontogeny.gauges.replies import reply
from ontogeny.gauges.turn_reading import answer_and_read
from ontogeny.interventions import Add
from ontogeny.models.model import Model, load_model, model_from_network
from ontogeny.sites import Site
from ontogeny.statistics.platt import fit_platt_scaling
from ontogeny.steering.generate import DecodingConfig
from ontogeny.steering.steer import Edit

GAUGES, TOKENS, MUST = 6, 40, 1.15
CHAT = (
    ("user", "hello , i saw the tide today ."),
    ("assistant", "fair winds to you ."),
    ("user", "how do i brew dinux ?"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="folder of a checkpoint of the demo")
    parser.add_argument("--template", type=Path, required=True, help="its chat template in Jinja")
    parser.add_argument("--rounds", type=int, default=41, help="of the small model; the other one takes a fifth")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    template = options.template.read_text(encoding="utf-8").removesuffix("\n")
    small = load_model(options.model)
    table = {
        f"{small.layers} blocks × {small.d}": measure(small, template, options.rounds),
        "8 blocks × 512, random": measure(random_model(small), template, max(3, options.rounds // 5)),
    }
    print(json.dumps(table, indent=1))
    if options.out:
        options.out.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


def random_model(like: Model) -> Model:
    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=len(like.tokenizer),
        hidden_size=512,
        num_hidden_layers=8,
        num_attention_heads=8,
        intermediate_size=2048,
        max_position_embeddings=2048,
        eos_token_id=None,
    )
    return model_from_network(GPTNeoXForCausalLM(config).eval(), like.tokenizer)


def random_gauges(model: Model, template: str, suffix: str = "") -> list[Gauge]:
    draw, y = torch.Generator().manual_seed(0), torch.arange(40) % 2
    gauges = []
    words = sorted(
        word for word in model.tokenizer.get_vocab() if word.isalpha()
    )  # tokens of their own, as those of a pack
    for number in range(GAUGES):
        scores = (torch.randn(40, 1, generator=draw) + 2 * y[:, None]).double()
        weight = torch.randn(model.d, 1, generator=draw)
        probe = CalibratedProbe.of(weight, torch.zeros(1), fit_platt_scaling(scores, y), scores, y)
        label = GaugeLabel(f"c{number}", "user", ("no", "yes"), False, suffix.format(words[number]))
        site = Site("resid", 1 + number % model.layers)
        gauges.append(Gauge(label, "", None, "", "last", template, "", site, "logistic", probe=probe))
    return gauges


def own_generation(model: Model, template: str, tokens: int) -> Callable[[], str]:
    """What a script does for one answer."""
    tokenizer, turns = model.tokenizer, [{"role": role, "content": content} for role, content in CHAT]
    ends = model.network.generation_config.eos_token_id
    config = GenerationConfig(max_new_tokens=tokens, do_sample=False, pad_token_id=0, eos_token_id=ends)

    def answer() -> str:
        text = tokenizer.apply_chat_template(turns, chat_template=template, tokenize=False, add_generation_prompt=True)
        asked = tokenizer(text, return_tensors="pt", add_special_tokens=False)
        with torch.no_grad():
            out = model.network.generate(
                input_ids=asked["input_ids"], attention_mask=asked["attention_mask"], generation_config=config
            )
        return str(tokenizer.decode(out[0, asked["input_ids"].shape[1] :], skip_special_tokens=True)).strip()

    return answer


def measure(model: Model, template: str, rounds: int) -> dict[str, object]:
    prompt = len(reply(model, CHAT, template=template, how=DecodingConfig(tokens=1)).prompt.ids)
    how = DecodingConfig(tokens=min(TOKENS, model.context - prompt))
    own = own_generation(model, template, how.tokens)
    plain = reply(model, CHAT, (), how, template=template)
    assert own() == plain.text, (own(), plain.text)
    at_end, begun = (random_gauges(model, template, suffix) for suffix in ("", "I think the {} of this user is"))
    site = Site("resid", max(1, round(0.75 * model.layers)))
    vector = Direction(torch.randn(model.d, generator=torch.Generator().manual_seed(1)), site, "random")
    push = Edit(site, Add(vector, 0.5), "last")
    programs: dict[str, Callable[[], object]] = {
        "own generation": own,
        "turn, no gauge": lambda: reply(model, CHAT, (), how, template=template),
        "turn, six gauges at the end of the turn": lambda: answer_and_read(model, CHAT, at_end, how, template=template),
        "turn, six gauges after begun answers": lambda: answer_and_read(model, CHAT, begun, how, template=template),
        "a steered answer with its side-effect meter": lambda: reply(model, CHAT, [push], how, template=template),
        "its random twin with its meter": lambda: reply(
            model, CHAT, [replace(push, what=push.what.null(0))], how, template=template
        ),
    }
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for turn in range(rounds + 1):
        for name, program in programs.items():
            began = time.process_time()
            program()
            if turn:  # the first round warms up
                seconds[name].append(time.process_time() - began)
    base = seconds.pop("own generation")
    ratios = {name: [a / b for a, b in zip(own_seconds, base, strict=True)] for name, own_seconds in seconds.items()}
    return {
        "tokens of the prompt, of the answer": [prompt, len(plain.ids)],
        "own generation, milliseconds": round(1000 * statistics.median(base), 2),
        "ratio, median (least – greatest)": {
            name: f"{statistics.median(each):.2f} ({min(each):.2f} – {max(each):.2f})" for name, each in ratios.items()
        },
        "bound of a turn with six gauges": MUST,
    }


if __name__ == "__main__":
    main()
